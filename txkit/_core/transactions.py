"""The transactions that a user begins on the guarded session: ``begin``, ``begin_nested``.

They know what the session's events don't: which of several is being committed,
and that a block ends well although a flush failed in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import SessionTransaction

from txkit._core.committing import explained
from txkit._core.control import Control
from txkit._core.permission import authorize

if TYPE_CHECKING:
    from txkit._core.participant import Participant


class GuardedTransaction(SessionTransaction):
    """An instance is given this class; SQLAlchemy makes it."""

    def commit(self, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Commit, if nothing around it forbids that; a savepoint is released."""
        one = _participant(self)
        if self.parent is None and one.control is Control.USER:
            authorize(one, "the commit of its transaction", ends_by="commit")
        try:
            super().commit(_to_root)
        except Exception as error:
            if self.parent is not None or one.control is not Control.USER:
                raise
            told = explained(f"session.begin() in {one.name}", one, error)
            if not self.is_active:
                self._end_refused(one)
            if told is error:
                raise
            raise told  # noqa: B904 - it has its cause

    def _end_refused(self, one: Participant) -> None:
        """End what a refused commit left: the server has rolled it back."""
        try:
            super().rollback()
        except Exception:  # noqa: BLE001 - the commit's error leaves
            one.discard()

    def __exit__(self, kind: object, error: Any, traceback: Any) -> None:  # noqa: PYI036
        """End the block; one in which a flush failed did not end well.

        Raises:
            UnexpectedRollbackError: the flush's error was swallowed; rolled back.
        """
        one = _participant(self)
        mark = None
        if kind is None and one.control is Control.USER and not one.sync.is_active:
            mark = one.broken_mark()
        super().__exit__(kind, error, traceback)
        if mark is not None:
            raise mark.refusal(one.name, ended=True) from mark.error


def guard_transaction(transaction: SessionTransaction | None) -> None:
    """Guard a transaction and those around it."""
    while transaction is not None:
        transaction.__class__ = GuardedTransaction
        transaction = transaction.parent


def _participant(transaction: SessionTransaction) -> Participant:
    session: Any = transaction.session
    participant: Participant = session.txkit_participant
    return participant
