"""The transactions that a user begins on the guarded session, its connection, and his commits.

``begin`` and ``begin_nested`` give objects that know what the session's events
don't: which of several is being committed, and that a block ends well although a
flush failed in it. A commit by hand runs to its end, as the boundary's does, and
what a refused one leaves is rolled back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from sqlalchemy.engine import Connection
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from txkit._core.committing import explained
from txkit._core.control import ByBoundary, Control
from txkit._core.finish import complete
from txkit._core.hooks import Outcome
from txkit._core.permission import authorize, refuse_foreign_commit, refuse_overlap
from txkit._core.telling import attach_failures, prepare_by_hand, raise_failures, tell_by_hand
from txkit.errors import AfterCommitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from txkit._core.participant import Participant


class GuardedTransaction(SessionTransaction):
    """An instance is given this class; SQLAlchemy makes it."""

    def commit(self, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Commit, if nothing around it forbids that; a savepoint is released."""
        one = _participant(self)
        refuse_overlap(one, "the commit of its transaction")
        if self.parent is not None or one.control is not Control.USER:
            super().commit(_to_root)
            return
        authorize(one, "the commit of its transaction", ends_by="commit")
        if one.sync.is_active:  # a cancellation or a limit may still break this off
            prepare_commit(one)
        name = f"session.begin() in {one.name}"
        commit_by_hand(name, one, super().commit)
        raise_failures(one.context, name, committed=True)

    def rollback(self, _capture_exception: bool = False, _to_root: bool = False) -> None:  # noqa: FBT001, FBT002
        """Roll back, and note what goes unsent with it."""
        one = _participant(self)
        if not _capture_exception:  # a flush that failed rolls back by itself
            refuse_overlap(one, "the rollback of its transaction")
        if self.parent is None and one.control is Control.USER:
            one.rolling_back()
        super().rollback(_capture_exception, _to_root)

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


def guard_transaction(innermost: SessionTransaction | None) -> SessionTransaction | None:
    """Guard a transaction and those around it, and give it back."""
    transaction = innermost
    while transaction is not None:
        transaction.__class__ = GuardedTransaction
        transaction = transaction.parent
    return innermost


class GuardedConnection(Connection):
    """A session's connection, which asks before it is committed: an instance is given this class.

    The session itself commits the transaction, and goes past this. SQLAlchemy's ``commit`` event
    would come too late: nothing can go on after a refusal in it.
    """

    txkit_participant: ReferenceType[Participant]

    def commit(self) -> None:
        """Commit, unless a session is at work on the connection."""
        one = self.txkit_participant()
        if one is not None and one.connection is self and not (self.closed or self.invalidated):
            refuse_foreign_commit(one)
        super().commit()


def guard_connection(connection: Connection, one: Participant) -> None:
    """Guard the connection of a transaction that was begun."""
    if type(connection) is Connection:
        guarded: Any = connection
        guarded.__class__ = GuardedConnection
        guarded.txkit_participant = ref(one)


def prepare_commit(one: Participant) -> None:
    """Flush, which may register hooks, and run those of a commit by hand, if it commits anything."""
    if one.control is not Control.USER:
        return
    one.sync.flush()
    ledger = None if one.context is None else one.context.ledger
    if ledger is not None and one.connection is not None and in_greenlet():
        await_only(prepare_by_hand(one))


def commit_by_hand(name: str, one: Participant, commit: Callable[[], None]) -> None:
    """Run a commit of the user's to its end, whatever becomes of his task.

    Raises:
        UnexpectedRollbackError, CommitOutcomeUnknownError: see ``explained``.
        Exception: it was refused; what it left is rolled back.
    """

    def committing() -> None:
        try:
            commit_whole(name, one, commit)
        except BaseException as error:
            told = explained(name, one, error)
            if not one.sync.is_active:
                end_refused(one)
            attach_failures(one.context, told)
            if told is error:
                raise
            raise told  # noqa: B904 - it has its cause

    if one.connection is None or not in_greenlet():
        committing()
    else:
        timeout_s = one.database.finish_timeout_s
        work = greenlet_spawn(committing)
        await_only(complete(work, timeout_s=timeout_s, discard=one.discard, revocable=True))


def commit_whole(name: str, one: Participant, commit: Callable[[], None]) -> None:
    """Commit; a listener of SQLAlchemy's own events that raises afterwards can't undo that.

    It is told as a hook that failed. SQLAlchemy would leave the transaction unclosed.

    Raises:
        AfterCommitError: there is no context to keep the failure; committed.
        Exception: the commit failed.
    """
    before = one.commits
    try:
        commit()
    except Exception as error:
        if one.commits == before:
            raise
        transaction = one.sync.get_transaction()
        if transaction is not None:
            with ByBoundary(one):
                transaction.close()
        if one.context is None:
            raise AfterCommitError(name, [error]) from error
        one.context.hooks().failures.append((Outcome.COMMITTED, error))
        if one.control is Control.USER:
            tell_due(one)


def end_refused(one: Participant) -> None:
    """End what a failed end by hand has left: the server rolls it back, or has done so."""
    session: Any = one.sync
    for _ in range(2):  # the second time without a connection
        try:
            with ByBoundary(one):
                session.rollback()
        except Exception:  # noqa: BLE001 - the first error leaves
            one.discard()
        else:
            break
    one.was_dropped()
    tell_due(one)


def tell_due(one: Participant) -> None:
    """Run the hooks whose moment an end by hand was, where something can be awaited."""
    ledger = None if one.context is None else one.context.ledger
    if ledger is not None and ledger.due and in_greenlet():
        await_only(tell_by_hand(one))


def _participant(transaction: SessionTransaction) -> Participant:
    session: Any = transaction.session
    participant: Participant = session.txkit_participant
    return participant
