"""The single steps that end things, each for one participant.

Every function runs below ``AsyncSession.run_sync`` (or sends nothing), past
the guard: the boundary is at it. A step that fails while cleaning up discards
the connection, since what the server holds is then in doubt.
"""

from __future__ import annotations

from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING

from sqlalchemy.exc import IllegalStateChangeError

from txkit._core.committing import explained
from txkit._core.control import ByBoundary, Control
from txkit._core.guard import plain
from txkit._core.permission import refuse_doomed
from txkit._core.transactions import commit_whole
from txkit._core.users import other_user
from txkit.database.blocking import is_at_work

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

    from txkit._core.context import Context
    from txkit._core.participant import Participant


async def flush(one: Participant) -> None:
    """Send pending ORM changes; INSERT, UPDATE and DELETE as SQLAlchemy orders them."""
    with ByBoundary(one):
        await one.session.flush()


async def commit(name: str, one: Participant, *, close: bool) -> None:
    """Send COMMIT; the connection goes back to the pool.

    Raises:
        UnexpectedRollbackError: the server answered ROLLBACK, or the connection was lost
            before, so that nothing was sent.
        CommitOutcomeUnknownError: no answer came.
        Exception: the commit was refused.
    """
    try:
        await one.session.run_sync(_commit, name, one, close=close)
    except BaseException as error:
        told = explained(name, one, error)
        if told is error:
            raise
        raise told  # noqa: B904 - it has its cause


def _commit(sync: Session, name: str, one: Participant, *, close: bool) -> None:
    with ByBoundary(one):
        session = plain(sync)
        commit_whole(name, one, session.commit)
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
    one.rolling_back()
    try:
        with ByBoundary(one):
            if one.context is not None and _is_in_other_hands(one, one.context):
                one.discard()
            session.rollback()
            if close:
                session.close()
    except IllegalStateChangeError:  # another task is at it
        one.discard()
        if not close:
            raise
    except BaseException:
        if close:
            session.invalidate()  # sends nothing: a failed ROLLBACK discards its connection
        raise
    finally:
        if close:
            one.was_closed()


def _is_in_other_hands(one: Participant, context: Context) -> bool:
    """Whether another task may be in a statement; in autocommit no ROLLBACK would tell."""
    if one.connection is None or other_user(context) is None:
        return False
    return context.autocommit or is_at_work(one.connection)


def close_idle(one: Participant) -> None:
    """Close a session that holds no connection; nothing is sent."""
    if one.control is not Control.CLOSED:
        one.rolling_back()
        try:
            # Another task that still gets a connection for it discards that one.
            with ByBoundary(one), suppress(IllegalStateChangeError):
                plain(one.sync).close()
        finally:
            one.was_closed()


async def begin_savepoint(one: Participant) -> SessionTransaction:
    """Set a savepoint: pending ORM changes are sent first, SAVEPOINT with its first statement.

    Raises:
        UnexpectedRollbackError: the changes would go where all can only be rolled back.
    """
    if one.is_suspect and one.has_changes:
        refuse_doomed(one)

    def step(sync: Session) -> SessionTransaction:
        with ByBoundary(one):
            savepoint: SessionTransaction = plain(sync).begin_nested()
            return savepoint

    return await one.session.run_sync(step)


async def release_savepoint(one: Participant, savepoint: SessionTransaction) -> None:
    """Send RELEASE SAVEPOINT, if anything was done in it."""

    def step(_sync: Session) -> None:
        with ByBoundary(one):
            savepoint.commit()

    await one.session.run_sync(step)


async def rollback_to_savepoint(one: Participant, savepoint: SessionTransaction) -> None:
    """Send ROLLBACK TO SAVEPOINT, if anything was done in it."""

    def step(_sync: Session) -> None:
        try:
            with ByBoundary(one):
                savepoint.rollback()
        except BaseException:
            one.discard()
            raise

    is_gone = savepoint in one.gone or attrgetter("session")(savepoint) is None
    if one.control is not Control.CLOSED and not is_gone:
        await one.session.run_sync(step)


def terminate(one: Participant) -> None:
    """Break the connection off and drop the session, where nothing can be awaited."""
    if one.control is not Control.CLOSED:
        one.discard()
        with ByBoundary(one):
            plain(one.sync).invalidate()
        one.was_closed()
