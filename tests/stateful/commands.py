"""What a program is made of: plain values, whose repr is the Python that makes them again.

A command is one step of a program. What it leaves behind (a row, a hook, an exception) bears the
number of its step. ``levels`` says how many scopes an exception of the command leaves before
somebody swallows it: 0 is swallowed on the spot.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, repr=False)
class Command:
    """What all of them have in common: a repr that leaves out what is as usual."""

    def __repr__(self) -> str:
        given = [(field, getattr(self, field.name)) for field in fields(self)]
        words = [f"{field.name}={value!r}" for field, value in given if value != field.default]
        return f"{type(self).__name__}({', '.join(words)})"


@dataclass(frozen=True, repr=False)
class Unit(Command):
    """Open ``transactional`` with a propagation, or ``new_context``.

    ``lenient`` has ``no_rollback_for=Tolerable``.
    """

    kind: str = "required"
    face: str = "function"
    lenient: bool = False
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Atomic(Command):
    """Open ``atomic`` as a function or block, or the seed's ``atomic_db_session``."""

    databases: tuple[int, ...] = ()
    mode: str | None = None
    face: str = "function"
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Savepoint(Command):
    """Open ``async with session.begin_nested()``."""

    db: int = 0
    levels: int = 0


@dataclass(frozen=True, repr=False)
class End(Command):
    """Leave the innermost scope, normally or by an exception."""

    error: str | None = None
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Write(Command):
    """Insert a row: at once, or as an ORM object that waits to be flushed."""

    db: int = 0
    pending: bool = False
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Read(Command):
    """Select something."""

    db: int = 0
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Fail(Command):
    """Run a statement that fails: ``null`` and ``missing`` at the server, ``argument`` before it."""

    db: int = 0
    why: str = "null"
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Borrow(Command):
    """Break a deferred foreign key: the statement succeeds, COMMIT is refused."""

    db: int = 0
    levels: int = 0


@dataclass(frozen=True, repr=False)
class Finish(Command):
    """Commit, roll back or close by hand, through the function or on the session."""

    how: str = "commit"
    db: int = 0
    by: str = "function"
    levels: int = 0


@dataclass(frozen=True, repr=False)
class AskRollback(Command):
    """Call ``set_rollback_only()``."""

    levels: int = 0


@dataclass(frozen=True, repr=False)
class Hook(Command):
    """Register a hook. ``does``: nothing but be seen, ``raise``, ``write``, ``ask`` or ``hook``."""

    kind: str = "after_commit"
    does: str = "nothing"
    db: int = 0
    robust: bool = False
    levels: int = 0
