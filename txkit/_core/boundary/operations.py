"""The single steps that end things, each for one participant.

Every function runs below ``AsyncSession.run_sync`` (or sends nothing), past
the guard: the boundary is at it. A step that fails while cleaning up discards
the connection, since what the server holds is then in doubt.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from txkit._core.guard import plain
from txkit._core.participant import Control

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.orm import Session, SessionTransaction

    from txkit._core.participant import Participant


async def flush(one: Participant) -> None:
    """Send pending ORM changes; INSERT, UPDATE and DELETE as SQLAlchemy orders them."""
    await one.session.flush()


async def commit(one: Participant, *, close: bool) -> None:
    """Send COMMIT; the connection goes back to the pool."""

    def step(sync: Session) -> None:
        with _by_boundary(one):
            plain(sync).commit()
            if close:
                plain(sync).close()
        if close:
            one.was_closed()

    await one.session.run_sync(step)


async def rollback(one: Participant, *, close: bool) -> None:
    """Send ROLLBACK; the connection goes back to the pool."""

    def step(sync: Session) -> None:
        with _by_boundary(one):
            try:
                plain(sync).rollback()
                if close:
                    plain(sync).close()
            except BaseException:
                one.discard()
                raise
            finally:
                if close:
                    one.was_closed()

    await one.session.run_sync(step)


def close_idle(one: Participant) -> None:
    """Close a session that holds no connection; nothing is sent."""
    with _by_boundary(one):
        plain(one.sync).close()
    one.was_closed()


async def begin_savepoint(one: Participant) -> SessionTransaction:
    """Set a savepoint: SAVEPOINT is sent with its first statement."""
    return await one.session.run_sync(lambda sync: plain(sync).begin_nested())


async def release_savepoint(one: Participant, savepoint: SessionTransaction) -> None:
    """Send RELEASE SAVEPOINT, if anything was done in it."""

    def step(_sync: Session) -> None:
        with _by_boundary(one):
            savepoint.commit()

    await one.session.run_sync(step)


async def rollback_to_savepoint(one: Participant, savepoint: SessionTransaction) -> None:
    """Send ROLLBACK TO SAVEPOINT, if anything was done in it."""

    def step(_sync: Session) -> None:
        with _by_boundary(one):
            savepoint.rollback()

    await one.session.run_sync(step)


def terminate(one: Participant) -> None:
    """Break the connection off and drop the session, where nothing can be awaited."""
    one.discard()
    with _by_boundary(one):
        plain(one.sync).invalidate()
    one.was_closed()


@contextlib.contextmanager
def _by_boundary(one: Participant) -> Generator[None]:
    before, one.control = one.control, Control.BOUNDARY
    try:
        yield
    finally:
        if one.control is Control.BOUNDARY:
            one.control = before
