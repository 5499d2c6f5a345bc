"""A statement that was cancelled, by whom it may be, has not run: no success without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text

from tests.boundary.mistakes import (
    driver,
    swallowed,
)
from tests.conftest import PostgresJudge
from tests.notes import count, write
from tests.told import rolled_back, watch
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    db_session,
    rollback_db_session,
    transactional,
)


class Lock:
    """A lock that the judge holds, for statements to wait for."""

    def __init__(self, pg: PostgresJudge) -> None:
        self.pg = pg

    async def is_waited_for(self) -> None:
        """Wait until a statement waits."""
        ask = (
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event = 'advisory'"
        )
        while not await self.pg.fetch(ask):
            await asyncio.sleep(0)


@pytest.fixture
async def lock(pg: PostgresJudge) -> AsyncIterator[Lock]:
    await pg.fetch("SELECT pg_advisory_lock(7)")
    yield Lock(pg)
    await pg.fetch("SELECT pg_advisory_unlock_all()")


async def waits_in_the_driver(db: Database) -> None:
    await (await driver(await db_session(db))).execute("SELECT pg_advisory_xact_lock(7)")


async def waits(db: Database) -> None:
    await (await db_session(db)).execute(text("SELECT pg_advisory_xact_lock(7)"))


async def by_wait_for(wait: Callable[[], Awaitable[None]], _: Lock) -> None:
    """Whenever it strikes: before the statement is sent, or while it waits."""
    with swallowed(TimeoutError):
        await asyncio.wait_for(wait(), 0.05)


async def by_timeout(wait: Callable[[], Awaitable[None]], lock: Lock) -> None:
    async def strike() -> None:
        await lock.is_waited_for()
        limit.reschedule(0)

    with swallowed(TimeoutError):
        async with asyncio.timeout(None) as limit:
            striking = asyncio.ensure_future(strike())
            await wait()
    await striking


async def by_hand(wait: Callable[[], Awaitable[None]], lock: Lock) -> None:
    task = asyncio.ensure_future(wait())
    await lock.is_waited_for()
    task.cancel()
    with swallowed(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("wait", [waits, waits_in_the_driver])
@pytest.mark.parametrize("cancel", [by_wait_for, by_timeout, by_hand])
async def test_swallowed_cancellation_dooms_the_unit(
    db: Database, pg: PostgresJudge, lock: Lock, cancel: Callable, wait: Callable
) -> None:
    told: list[str] = []
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            watch(told, "unit")
            await write(db, "lost")
            await cancel(lambda: wait(db), lock)
    assert told[-2:] == rolled_back("unit")
    assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await pg.texts() == []
    await transactional(write)(db, "next")
    assert await pg.texts() == ["next"]


async def test_swallowed_cancellation_dooms_more_than_the_savepoint(
    db: Database, pg: PostgresJudge, lock: Lock
) -> None:
    """SQLAlchemy gives a connection up on which a statement was cancelled."""
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            await write(db, "lost")
            with swallowed():
                async with atomic(db, current_transaction="savepoint"):
                    await by_timeout(lambda: waits(db), lock)
            with pytest.raises(UnexpectedRollbackError):
                await count(db)
    assert await pg.texts() == []


async def test_rollback_by_hand_mends(db: Database, pg: PostgresJudge, lock: Lock) -> None:
    async with transactional():
        await write(db, "lost")
        await by_timeout(lambda: waits(db), lock)
        await rollback_db_session(db)
        await write(db, "kept")
    assert await pg.texts() == ["kept"]


@pytest.mark.usefixtures("lock")
async def test_cancelled_by_the_server_is_an_error_like_any_other(
    db: Database, pg: PostgresJudge
) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional():
            await write(db, "lost")
            session = await db_session(db)
            await session.execute(text("SET LOCAL statement_timeout = '20ms'"))
            with swallowed() as first:
                await waits(db)
    assert caught.value.__cause__ is first.error
    assert await pg.texts() == []
