"""Cancelled while the pool gives up a connection that it no longer trusts, and opens another.

SQLAlchemy has to come to its end there, so the cancellation is put off; it must still be
the one that was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from sqlalchemy.exc import DBAPIError

from tests.conftest import PostgresJudge, opened
from tests.notes import write
from tests.postgres.test_cancellation import asleep, sleep
from txkit import Database, new_context, transactional


async def by_scope(unit: Callable[[], Awaitable[None]]) -> None:
    async def cancel(scope: anyio.CancelScope) -> None:
        await hanging_up()
        scope.cancel()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel, scope)
            await unit()
    assert scope.cancelled_caught


async def by_timeout(unit: Callable[[], Awaitable[None]]) -> None:
    async def cancel(limit: asyncio.Timeout) -> None:
        await hanging_up()
        limit.reschedule(0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            canceller = asyncio.create_task(cancel(limit))
            await unit()
    await canceller


async def hanging_up() -> None:
    """Wait until a connection is being given up."""
    while not any(task.get_name() == "txkit: hanging up" for task in asyncio.all_tasks()):
        await asyncio.sleep(0)


async def two_of_which_one_is_killed(db: Database, pg: PostgresJudge) -> None:
    """Lose a connection of two: the pool trusts the other one no more, either."""
    together = asyncio.Barrier(2)

    @new_context
    async def connected() -> None:
        await write(db, "connected")
        await together.wait()

    await asyncio.gather(connected(), connected())
    victim = asyncio.create_task(transactional(sleep)(db))
    await asleep(pg)
    await pg.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        " AND datname = current_database()"
    )
    with pytest.raises(DBAPIError):
        await victim


@pytest.mark.parametrize("cancelled", [by_scope, by_timeout])
async def test_cancellation_is_still_that_of_who_asked(
    pg: PostgresJudge, cancelled: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
) -> None:
    @transactional
    async def unit() -> None:
        await write(db, "never")

    async for db in opened(pg, pool_size=2, max_overflow=0):
        await two_of_which_one_is_killed(db, pg)
        await cancelled(unit)
        await transactional(write)(db, "next")
    assert await pg.texts() == ["connected", "connected", "next"]
