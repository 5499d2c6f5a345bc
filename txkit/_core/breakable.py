"""What errors do to a transaction, and what undoes them.

PostgreSQL refuses everything after an error, SQLite doesn't: here both do. The
first error that nothing has undone is what every refusal and the end are raised
from; a rollback to a savepoint that was set before it undoes it.

Must not raise anything: ``permission`` refuses, ``boundary`` ends.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING

from txkit._core.control import Control
from txkit._core.notes import in_words
from txkit._core.place import current
from txkit._core.scope import Mark
from txkit.database.watch import follow_undoing

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, NestedTransaction
    from sqlalchemy.orm import Session

    from txkit._core.context import Context
    from txkit._core.lockout import Sentry
    from txkit.errors import Doom


class Breakable:
    """A session's transaction that errors can break.

    ``broken`` is the first error that nothing has undone yet, ``broken_in`` the savepoint
    that can undo it, ``last_mark`` that of the last error, undone or not, ``failure`` the
    error itself. ``connection`` is there while a transaction is open on it, and
    ``sentry``, inside another unit, looks out for a caller that blocks it.
    """

    __slots__ = (
        "broken",
        "broken_in",
        "connection",
        "context",
        "control",
        "failure",
        "last_mark",
        "sentry",
        "sync",
    )

    def __init__(self, sync: Session, context: Context | None) -> None:
        self.sync = sync
        self.context = context
        self.connection: Connection | None = None
        self.control = Control.USER
        self.broken: Mark | None = None
        self.broken_in: NestedTransaction | None = None
        self.failure: BaseException | None = None
        self.last_mark: Mark | None = None
        self.sentry: Sentry | None = None

    @property
    def name(self) -> str:
        """Who the session works for."""
        return "a session outside any context" if self.context is None else self.context.name

    @property
    def is_suspect(self) -> bool:
        """Whether a look is needed before anything is sent."""
        return self.broken is not None or (self.context is not None and self.context.doomed)

    def broken_mark(self) -> Mark | None:
        """Give the mark of an error that broke the transaction, unless it was undone."""
        if self.control is not Control.CLOSED and not self.sync.is_active:
            text = "its transaction failed, and the error was swallowed"
            unseen = Mark(self.name, text, self.failure, final=True)
            return self.broken or self.last_mark or unseen
        if self.broken is None or self.broken_in is None or self.broken_in.is_active:
            return self.broken
        self.mended()
        return None

    def mended(self) -> None:
        """Note that a savepoint undid the error."""
        self.broken = self.broken_in = None

    def starvation(self) -> BaseException | None:
        """Give what is raised for a statement that was cancelled because a caller blocks it."""
        return None if self.sentry is None else self.sentry.take_refusal()

    def refusal(self) -> BaseException:
        """Give what is raised for a statement that the server refused for an earlier error."""
        mark = self.broken or Mark(self.name, "an earlier statement failed", final=True)
        return mark.refusal(self.name, ended=False)

    def failed(self, error: BaseException, *, lost: bool) -> None:
        """Note that a statement failed, by which the transaction is broken."""
        context = self.context
        self.failure = error
        if self.connection is None or (context is not None and context.autocommit):
            return
        known = self.broken_mark()
        if known is not None and known.error is not None and _is_cause(known.error, error):
            known.error = error  # the driver's, which SQLAlchemy has wrapped by now
        is_cut_short = isinstance(error, CancelledError)
        reason = "cancelled during a statement" if is_cut_short else in_words(error)
        how: Doom = "lost" if lost else "failed"
        self.last_mark = Mark(self._culprit(), reason, error, final=True, how=how)
        if known is None or lost:
            self.broken = self.broken or self.last_mark
            self.broken_in = None if lost else self.connection.get_nested_transaction()
            follow_undoing(self.connection, self)
            if context is not None:
                context.doomed = True

    def flush_failed(self, error: BaseException) -> None:
        """Note what made the session refuse everything until it is rolled back."""
        self.failure = error
        if not self.sync.is_active:
            self.last_mark = Mark(self._culprit(), in_words(error), error, final=True)
            if self.context is not None:
                self.context.doomed = True

    def _culprit(self) -> str:
        """Name the function that runs."""
        place = current()
        if place is None or place.context is not self.context:
            return self.name
        return place.caller or place.context.scopes[-1].name


def _is_cause(error: BaseException, of: BaseException) -> bool:
    """Whether ``of`` is the same failure, as SQLAlchemy tells it."""
    original = getattr(of, "orig", None)
    return original is not None and error in {original, original.__cause__}
