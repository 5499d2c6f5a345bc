"""The guarded session: it asks its participant before anything is sent.

A session of anybody's factory is guarded by giving the *instance* a class made
for it: a subclass of its own one, made once, whose methods ask first. The
user's class and its other instances stay as they are, ``isinstance`` and the
class's event listeners go on working. (Sessions of the default factory are made
of ``PLAIN_SESSION`` at once.) Only the synchronous ``Session`` below
the ``AsyncSession`` is guarded, since every way to the database leads there
(``run_sync``, ``session.begin()``, lazy loads).

Must not know why something is refused: ``permission`` decides.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from txkit._core.control import ByBoundary, Control
from txkit._core.lockout import post_sentry
from txkit._core.permission import (
    authorize,
    refuse_begin,
    refuse_connection,
    refuse_doomed,
    refuse_overlap,
    refuse_release,
    route,
)
from txkit._core.telling import attach_failures, raise_failures
from txkit._core.transactions import (
    commit_by_hand,
    end_refused,
    guard_connection,
    guard_transaction,
    prepare_commit,
    tell_due,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.engine import Connection, Engine

    from txkit._core.participant import Participant


class Guarded(Session):
    """The methods that ask first. Never made itself, only mixed in by ``guard``."""

    txkit_participant: Participant

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Route the statement that is about to run, or refuse it."""
        bind = super().get_bind(*args, **kwargs)
        return route(self.txkit_participant, bind, kwargs.get("clause"))

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002
        """Refuse a transaction of its own inside an atomic block; savepoints are allowed."""
        one = self.txkit_participant
        if not nested:
            authorize(one, "session.begin()", ends_by="begin")
        refuse_begin(one, nested=nested)
        transaction = super().begin(nested)
        if one.control is Control.USER:
            guard_transaction(transaction)
            if nested:
                one.set_savepoint(transaction)
            else:
                one.is_explicit = True
        return transaction

    def get_transaction(self) -> SessionTransaction | None:
        """Give the transaction, guarded: it may have been begun by itself."""
        return guard_transaction(super().get_transaction())

    def get_nested_transaction(self) -> SessionTransaction | None:
        """Give the savepoint, guarded as its transaction is."""
        return guard_transaction(super().get_nested_transaction())

    def flush(self, objects: Any = None) -> None:
        """Refuse before the flush begins: a refusal inside would end the transaction."""
        one = self.txkit_participant
        if one.control is not Control.CLOSED:
            refuse_overlap(one, "a session")
        if one.is_suspect and one.has_changes:
            refuse_doomed(one)
        try:
            super().flush(objects)
        except BaseException as error:
            one.flush_failed(error)
            raise

    def add(self, instance: object, *args: Any, **kwargs: Any) -> None:
        """Note that the session is used."""
        refuse_overlap(self.txkit_participant, "session.add()")
        self.txkit_participant.touch()
        super().add(instance, *args, **kwargs)

    def delete(self, instance: object) -> None:
        """Note that the session is used."""
        refuse_overlap(self.txkit_participant, "session.delete()")
        self.txkit_participant.touch()
        super().delete(instance)

    def commit(self) -> None:
        """Commit by hand, where that is allowed; hooks run before and after it."""
        one = self.txkit_participant
        authorize(one, "session.commit()", ends_by="commit")
        if one.control is Control.USER and not one.in_transaction:
            with ByBoundary(one):  # nothing is open: no hook has a commit to wait for
                super().commit()
            return
        prepare_commit(one)
        if one.control is Control.USER:
            commit_by_hand(f"session.commit() in {one.name}", one, super().commit)
        else:
            super().commit()
        _complain(one, "session.commit()", committed=True)

    def prepare(self) -> None:
        """Prepare by hand, where that is allowed."""
        authorize(self.txkit_participant, "session.prepare()", ends_by="commit")
        super().prepare()

    def rollback(self) -> None:
        """Roll back by hand, where that is allowed; that mends a doomed transaction."""
        with _by_hand(self.txkit_participant, "session.rollback()", closes=False):
            super().rollback()

    def reset(self) -> None:
        """Reset by hand, where that is allowed."""
        with _by_hand(self.txkit_participant, "session.reset()", closes=False):
            super().reset()

    def close(self) -> None:
        """Close by hand, where that is allowed."""
        with _by_hand(self.txkit_participant, "session.close()", closes=True):
            super().close()

    def invalidate(self) -> None:
        """Close by hand and discard the connection, where that is allowed."""
        with _by_hand(self.txkit_participant, "session.invalidate()", closes=True):
            super().invalidate()


def guard(participant: Participant) -> None:
    """Put the participant between its session and the database."""
    sync: Any = participant.sync
    if not isinstance(sync, Guarded):
        sync.__class__ = _guarded_class(type(sync))  # type: ignore[arg-type]
    sync.txkit_participant = participant
    if "dispatch" in vars(sync):  # a listener of its own has tied its events to its first class
        _listen(sync)


def plain(sync: Session) -> Any:
    """Give the session as its own class knows it, for the boundary, which need not ask."""
    guarded: Any = sync
    return super(Guarded, guarded)


@lru_cache(maxsize=64)
def _guarded_class(cls: type[Session]) -> type[Session]:
    name = cls.__name__
    guarded = type(name, (Guarded, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    _listen(guarded)
    return guarded


def _listen(target: Any) -> None:
    # Before the user's own: theirs may send what begins the transaction, or raise.
    event.listen(target, "after_begin", _after_begin, insert=True)
    event.listen(target, "before_commit", _before_commit)
    event.listen(target, "after_commit", _after_commit, insert=True)
    event.listen(target, "after_soft_rollback", _after_soft_rollback)
    event.listen(target, "after_transaction_end", _after_transaction_end, insert=True)


def _after_begin(
    session: Guarded, _transaction: SessionTransaction, connection: Connection
) -> None:
    one = session.txkit_participant
    one.begun(connection)
    guard_connection(connection, one)
    post_sentry(one)
    refuse_connection(one, connection)


def _before_commit(session: Guarded) -> None:
    """Refuse the end of a ``session.begin()`` or savepoint that may only be rolled back."""
    one = session.txkit_participant
    if one.control is Control.USER:
        savepoint = session.get_nested_transaction()
        if savepoint is None:
            authorize(one, "the commit of its transaction", ends_by="commit")
            prepare_commit(one)
            authorize(one, "the commit of its transaction", ends_by="commit")
        else:
            refuse_release(one, savepoint)


def _after_commit(session: Guarded) -> None:
    session.txkit_participant.committed()


def _after_soft_rollback(session: Guarded, previous: SessionTransaction) -> None:
    session.txkit_participant.rolled_back(previous)


def _after_transaction_end(session: Guarded, transaction: SessionTransaction) -> None:
    one = session.txkit_participant
    one.ended(transaction)
    if one.control is Control.USER:
        tell_due(one)


def _complain(one: Participant, operation: str, *, committed: bool = False) -> None:
    """Raise what hooks have raised that ran after an end by hand."""
    if one.control is not Control.BOUNDARY:
        raise_failures(one.context, f"{operation} in {one.name}", committed=committed)


@contextlib.contextmanager
def _by_hand(participant: Participant, operation: str, *, closes: bool) -> Generator[None]:
    """Let the user roll back or close, where that is allowed, and note it even if it fails."""
    authorize(participant, operation, ends_by="rollback")
    was_open = participant.connection is not None
    participant.rolling_back()
    try:
        yield
    except Exception as error:
        if participant.control is Control.USER:
            end_refused(participant)
            attach_failures(participant.context, error)
        raise
    finally:
        participant.ended_by_hand(operation, was_open=was_open)
        if closes:
            participant.was_closed()
    _complain(participant, operation)


PLAIN_SESSION = _guarded_class(Session)
"""SQLAlchemy's own session, guarded from the start: an instance whose class is changed is slower."""
