"""The guarded session: it asks its participant before anything is sent.

A session of anybody's factory is guarded by giving the *instance* a class made
for it: a subclass of its own one, made once, whose methods ask first. The
user's class and its other instances stay as they are, ``isinstance`` and the
class's event listeners go on working. Only the synchronous ``Session`` below
the ``AsyncSession`` is guarded, since every way to the database leads there
(``run_sync``, ``session.begin()``, lazy loads).

Must not know why something is refused: the participant decides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from txkit._core.participant import Control, Participant

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine


class Guarded(Session):
    """The methods that ask first. Never made itself, only mixed in by ``guard``."""

    txkit_participant: Participant

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Route the statement that is about to run, or refuse it."""
        return self.txkit_participant.route(super().get_bind(*args, **kwargs))

    def begin(self, nested: bool = False) -> SessionTransaction:  # noqa: FBT001, FBT002
        """Refuse a transaction of its own inside an atomic block; savepoints are allowed."""
        if not nested:
            self.txkit_participant.authorize("session.begin()", ends_by="begin")
        return super().begin(nested)

    def commit(self) -> None:
        """Commit by hand, where that is allowed."""
        self.txkit_participant.authorize("session.commit()", ends_by="commit")
        super().commit()

    def prepare(self) -> None:
        """Prepare by hand, where that is allowed."""
        self.txkit_participant.authorize("session.prepare()", ends_by="commit")
        super().prepare()

    def rollback(self) -> None:
        """Roll back by hand, where that is allowed; that mends a doomed transaction."""
        self.txkit_participant.authorize("session.rollback()", ends_by="rollback")
        super().rollback()
        _lift(self.txkit_participant)

    def close(self) -> None:
        """Close by hand, where that is allowed."""
        self.txkit_participant.authorize("session.close()", ends_by="rollback")
        super().close()
        _lift(self.txkit_participant)
        self.txkit_participant.was_closed()

    def invalidate(self) -> None:
        """Close by hand and discard the connection, where that is allowed."""
        self.txkit_participant.authorize("session.invalidate()", ends_by="rollback")
        super().invalidate()
        _lift(self.txkit_participant)
        self.txkit_participant.was_closed()

    def reset(self) -> None:
        """Reset by hand, where that is allowed."""
        self.txkit_participant.authorize("session.reset()", ends_by="rollback")
        super().reset()
        _lift(self.txkit_participant)


def guard(participant: Participant) -> None:
    """Put the participant between its session and the database."""
    sync: Any = participant.sync
    sync.__class__ = _guarded_class(type(sync))  # type: ignore[arg-type]
    sync.txkit_participant = participant


def plain(sync: Session) -> Any:
    """Give the session as its own class knows it, for the boundary, which need not ask."""
    guarded: Any = sync
    return super(Guarded, guarded)


@lru_cache(maxsize=64)
def _guarded_class(cls: type[Session]) -> type[Session]:
    name = cls.__name__
    guarded = type(name, (Guarded, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
    event.listen(guarded, "after_begin", _after_begin)
    event.listen(guarded, "before_commit", _before_commit)
    event.listen(guarded, "after_soft_rollback", _after_soft_rollback)
    event.listen(guarded, "after_transaction_end", _after_transaction_end)
    return guarded


def _after_begin(
    session: Guarded, _transaction: SessionTransaction, connection: Connection
) -> None:
    session.txkit_participant.begun(connection)


def _before_commit(session: Guarded) -> None:
    """Refuse the end of a ``session.begin()`` block that may only be rolled back."""
    one = session.txkit_participant
    if one.control is Control.USER and not session.in_nested_transaction():
        one.authorize("the commit of session.begin()", ends_by="commit")


def _after_soft_rollback(session: Guarded, previous: SessionTransaction) -> None:
    if previous.parent is None:
        _lift(session.txkit_participant)


def _after_transaction_end(session: Guarded, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.txkit_participant.connection = None


def _lift(participant: Participant) -> None:
    if participant.context is not None and participant.control is not Control.BOUNDARY:
        participant.context.lift(participant.database)
