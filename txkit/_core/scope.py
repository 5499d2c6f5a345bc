"""A scope, and the mark of what may only be rolled back.

Kept apart from the context, which has a stack of them: here is what one of
them knows by itself. Must not know contexts, sessions or the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit.errors import UnexpectedRollbackError

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

    from txkit._core.participant import Participant
    from txkit.database import Database


class Mark:
    """Why something may only be rolled back. ``own``: the unit asked for it itself."""

    __slots__ = ("culprit", "error", "own", "reason")

    def __init__(
        self, culprit: str, reason: str, error: BaseException | None = None, *, own: bool = False
    ) -> None:
        self.culprit = culprit
        self.reason = reason
        self.error = error
        self.own = own

    def refusal(self, function: str, *, ended: bool) -> UnexpectedRollbackError:
        """Make the error that is to be raised from ``self.error``."""
        return UnexpectedRollbackError(
            function, self.culprit, self.reason, own=self.own, ended=ended
        )


class Scope:
    """What fails as a whole: a context, or an atomic block inside it.

    ``held`` are the participants of an atomic block, each with its savepoint, or
    None where the block owns the transaction. ``mark`` dooms all of the scope;
    ``marks`` are those of the context's transactions, by Database.
    """

    __slots__ = ("atomic", "held", "mark", "marks", "name", "only")

    def __init__(self, name: str, *, atomic: bool, only: tuple[Database, ...] = ()) -> None:
        self.name = name
        self.atomic = atomic
        self.only = only
        self.held: dict[Participant, SessionTransaction | None] = {}
        self.mark: Mark | None = None
        self.marks: dict[Database, Mark] = {}

    def clear(self) -> None:
        """Let go of participants and marks, which point back."""
        self.held.clear()
        self.marks.clear()
        self.mark = None

    def owns(self, database: Database) -> bool:
        """Whether the Database's transaction must not be broken up inside this scope."""
        return self.atomic and (not self.only or database in self.only)

    def all_marks(self) -> list[Mark]:
        """Give the marks that keep the scope from committing."""
        return [mark for mark in (self.mark, *self.marks.values()) if mark is not None]

    def final_mark(self) -> Mark | None:
        """Give the one that counts: what the scope asked for itself, else the first."""
        marks = self.all_marks()
        return next((mark for mark in marks if mark.own), marks[0] if marks else None)
