"""The context: what the ContextVar holds while a boundary is open.

One participant (a session and its transaction) per Database, made on demand;
a stack of scopes (the context itself, then its atomic blocks), each of which
may be marked rollback-only; and the state. This is the only ContextVar of
txkit. It is set and restored by value, never by token: a generator or another
task may be the one that restores it.

Must not send SQL: ``boundary`` does that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any

from txkit.errors import AtomicControlError, ContextClosedError, NoContextError

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

    from txkit._core.participant import Participant
    from txkit.database import Database


class State(Enum):
    """A context is open, then closed, and never open again."""

    OPEN = "open"
    CLOSED = "closed"


class Mark:
    """Why a scope may only be rolled back."""

    __slots__ = ("culprit", "error", "reason")

    def __init__(self, culprit: str, error: BaseException | None, reason: str) -> None:
        self.culprit = culprit
        self.error = error
        self.reason = reason


class Scope:
    """What fails as a whole: a context, or an atomic block inside it.

    ``caller`` is the joined function that runs in it, innermost; None while the
    scope's own function runs. ``held`` are the participants of an atomic block,
    each with its savepoint, or None where the block owns the transaction.
    """

    __slots__ = ("asked", "atomic", "caller", "held", "lifted", "mark", "name", "only")

    def __init__(self, name: str, *, atomic: bool, only: tuple[Database, ...] = ()) -> None:
        self.name = name
        self.atomic = atomic
        self.only = only
        self.mark: Mark | None = None
        self.lifted: set[Database] = set()
        self.asked: str | None = None
        self.caller: str | None = None
        self.held: dict[Participant, SessionTransaction | None] = {}

    def owns(self, database: Database) -> bool:
        """Whether the Database's transaction must not be broken up inside this scope."""
        return self.atomic and (not self.only or database in self.only)

    def doom(self, culprit: str, error: BaseException | None, reason: str) -> None:
        """Mark the scope rollback-only; the first mark stays."""
        if self.mark is None or self.lifted:
            self.mark = Mark(culprit, error, reason)
            self.lifted.clear()


class Context:
    """Sessions, scopes and state of one boundary."""

    __slots__ = ("blocks", "name", "outer", "participants", "root", "scopes", "state", "used")

    def __init__(self, root: Scope, outer: Context | None) -> None:
        self.name = root.name
        self.root = root
        self.outer = outer
        self.state = State.OPEN
        self.participants: dict[Database, Participant] = {}
        self.used: dict[Database, None] = {}
        self.scopes: list[Scope] = [root]
        self.blocks: list[Any] = []

    def mark_on(self, database: Database) -> Mark | None:
        """Give the mark that dooms the Database's transaction, innermost first."""
        for scope in reversed(self.scopes):
            if scope.mark is not None and (scope.owns(database) or scope is self.root):
                return None if database in scope.lifted else scope.mark
        return None

    def final_mark(self) -> Mark | None:
        """Give the mark that keeps the context from committing, unless all of it was mended."""
        root = self.root
        if root.lifted and all(database in root.lifted for database in self.used):
            return None
        return root.mark

    def lift(self, database: Database) -> None:
        """Take the context's mark off one Database, whose transaction was rolled back."""
        if self.root.mark is not None:
            self.root.lifted.add(database)

    def refuse_control(self, database: Database, operation: str) -> None:
        """Let nobody end by hand what an atomic block owns."""
        owner = self.atomic_owner(database)
        if owner is not None:
            raise AtomicControlError(operation, owner.name)

    def atomic_owner(self, database: Database) -> Scope | None:
        """Give the innermost atomic block that owns the Database's transaction."""
        for scope in reversed(self.scopes):
            if scope.owns(database):
                return scope
        return None

    def in_order_of_use(self) -> list[Participant]:
        """Give the participants, the one that was used first at the front."""
        participants = list(self.participants.values())
        if len(participants) > 1:
            order = {database: place for place, database in enumerate(self.used)}
            participants.sort(key=lambda one: order.get(one.database, len(order)))
        return participants


_CURRENT: ContextVar[Context | None] = ContextVar("txkit", default=None)

current: Callable[[], Context | None] = _CURRENT.get
"""Give the context of the running code, open or closed, or None."""


def install(context: Context | None) -> None:
    """Make ``context`` the current one."""
    _CURRENT.set(context)


def open_context(function: str) -> Context:
    """Give the current context, or say what is missing.

    Raises:
        NoContextError: there is none.
        ContextClosedError: its boundary has ended.
    """
    context = current()
    if context is None:
        raise NoContextError(function)
    if context.state is not State.OPEN:
        what = f"{function}()"
        raise ContextClosedError(what, context.name)
    return context


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: install(None))
