"""A scope, a savepoint, and the mark of what may only be rolled back.

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
    from txkit.errors import Doom


class Mark:
    """Why something may only be rolled back.

    ``own``: the unit asked for it itself. ``final``: no rule of the unit can commit it.
    ``how``: see ``UnexpectedRollbackError``.
    """

    __slots__ = ("culprit", "error", "final", "how", "own", "reason")

    def __init__(
        self,
        culprit: str,
        reason: str,
        error: BaseException | None = None,
        *,
        own: bool = False,
        final: bool = False,
        how: Doom = "failed",
    ) -> None:
        self.culprit = culprit
        self.reason = reason
        self.error = error
        self.own = own
        self.final = final
        self.how: Doom = how

    def refusal(self, function: str, *, ended: bool) -> UnexpectedRollbackError:
        """Make the error that is to be raised from ``self.error``."""
        return UnexpectedRollbackError(
            function, self.culprit, self.reason, how=self.how, ended=ended
        )


def unfinished(name: str) -> Mark:
    """Give the mark of a block that nobody can finish any more: a generator's that was left."""
    reason = "it was left early, and not closed by the task that uses it"
    return Mark(name, reason, final=True, how="unfinished")


class Scope:
    """What fails as a whole: a context, or an atomic block inside it.

    ``commits``: it ends what it began itself; a nested call leaves that to its boundary.
    ``held`` are the participants of an atomic block, each with its savepoint, or
    None where the block owns the transaction. ``mark`` dooms all of the scope, but
    for the Databases in ``mended``; ``marks`` are those of single transactions.
    ``order`` tells what was opened after what.
    """

    __slots__ = ("atomic", "commits", "held", "mark", "marks", "mended", "name", "only", "order")

    def __init__(
        self, name: str, *, atomic: bool, only: tuple[Database, ...] = (), commits: bool = True
    ) -> None:
        self.name = name
        self.atomic = atomic
        self.commits = commits
        self.only = only
        self.order = 0
        self.held: dict[Participant, SessionTransaction | None] = {}
        self.mark: Mark | None = None
        self.mended: set[Database] = set()
        self.marks: dict[Database, Mark] = {}

    def doom(self, mark: Mark) -> None:
        """Mark all of it; the first mark stays, but for what the scope asks itself."""
        if self.mark is None or self.mended or mark.own:
            self.mark = mark
            self.mended.clear()

    def mark_on(self, database: Database) -> Mark | None:
        """Give the mark that dooms the Database's transaction here."""
        if self.mark is not None and database not in self.mended:
            return self.mark
        return self.marks.get(database)

    def savepoint_of(self, one: Participant) -> SessionTransaction | None:
        """Give the savepoint of the block on a participant."""
        return self.held.get(one)

    def holds_whole(self, one: Participant) -> bool:
        """Whether the block owns the participant's transaction."""
        return one in self.held and self.held[one] is None

    def clear(self) -> None:
        """Let go of participants and marks, which point back."""
        self.held.clear()
        self.marks.clear()
        self.mark = None

    def owns(self, database: Database) -> bool:
        """Whether the Database's transaction must not be broken up inside this scope."""
        return self.atomic and (not self.only or database in self.only)


class Savepoint:
    """A savepoint of the user's: when it was set, and whether it may only be rolled back."""

    __slots__ = ("mark", "order")

    def __init__(self, order: int) -> None:
        self.order = order
        self.mark: Mark | None = None

    def doom(self, mark: Mark) -> None:
        """Mark it; the first mark stays."""
        self.mark = self.mark or mark
