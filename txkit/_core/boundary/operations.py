"""The single steps that end things, each for one participant.

Every function runs below ``AsyncSession.run_sync`` (or sends nothing), past
the guard: the boundary is at it. A step that fails while cleaning up discards
the connection, since what the server holds is then in doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.guard import plain
from txkit._core.participant import Control

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

    from txkit._core.participant import Participant


async def flush(one: Participant) -> None:
    """Send pending ORM changes; INSERT, UPDATE and DELETE as SQLAlchemy orders them."""
    with _ByBoundary(one):
        await one.session.flush()


async def commit(one: Participant, *, close: bool) -> None:
    """Send COMMIT; the connection goes back to the pool."""
    await one.session.run_sync(_commit, one, close=close)


def _commit(sync: Session, one: Participant, *, close: bool) -> None:
    with _ByBoundary(one):
        session = plain(sync)
        session.commit()
        if close:
            session.close()
    if close:
        one.was_closed()


async def rollback(one: Participant, *, close: bool) -> None:
    """Send ROLLBACK; the connection goes back to the pool."""
    if one.control is not Control.CLOSED:
        await one.session.run_sync(_rollback, one, close=close)


def _rollback(sync: Session, one: Participant, *, close: bool) -> None:
    session = plain(sync)
    try:
        with _ByBoundary(one):
            session.rollback()
            if close:
                session.close()
    except BaseException:
        one.discard()
        if close:
            session.invalidate()  # sends nothing, now that its connection is discarded
        raise
    finally:
        if close:
            one.was_closed()


def close_idle(one: Participant) -> None:
    """Close a session that holds no connection; nothing is sent."""
    if one.control is not Control.CLOSED:
        try:
            with _ByBoundary(one):
                plain(one.sync).close()
        finally:
            one.was_closed()


async def begin_savepoint(one: Participant) -> SessionTransaction:
    """Set a savepoint: SAVEPOINT is sent with its first statement."""

    def step(sync: Session) -> SessionTransaction:
        with _ByBoundary(one):
            savepoint: SessionTransaction = plain(sync).begin_nested()
            return savepoint

    return await one.session.run_sync(step)


async def release_savepoint(one: Participant, savepoint: SessionTransaction) -> None:
    """Send RELEASE SAVEPOINT, if anything was done in it."""

    def step(_sync: Session) -> None:
        with _ByBoundary(one):
            savepoint.commit()

    await one.session.run_sync(step)


async def rollback_to_savepoint(one: Participant, savepoint: SessionTransaction) -> None:
    """Send ROLLBACK TO SAVEPOINT, if anything was done in it."""

    def step(_sync: Session) -> None:
        try:
            with _ByBoundary(one):
                savepoint.rollback()
        except BaseException:
            one.discard()
            raise

    if one.control is not Control.CLOSED and savepoint not in one.gone:
        await one.session.run_sync(step)


def terminate(one: Participant) -> None:
    """Break the connection off and drop the session, where nothing can be awaited."""
    if one.control is not Control.CLOSED:
        one.discard()
        with _ByBoundary(one):
            plain(one.sync).invalidate()
        one.was_closed()


class _ByBoundary:
    """While it is entered, the participant's guard lets everything pass."""

    __slots__ = ("_before", "_one")

    def __init__(self, one: Participant) -> None:
        self._one = one

    def __enter__(self) -> None:
        self._before = self._one.control
        self._one.control = Control.BOUNDARY

    def __exit__(self, *_: object) -> None:
        if self._one.control is Control.BOUNDARY:
            self._one.control = self._before
