"""Cancelled while a new engine's first connections wait for each other: none is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from tests.conftest import PostgresJudge, opened
from tests.notes import write
from txkit import Database, new_context, transactional


async def in_parallel(db: Database, count: int) -> None:
    """Use so many connections at once."""
    together = asyncio.Barrier(count)

    @new_context
    async def unit() -> None:
        await write(db, "kept")
        await together.wait()

    await asyncio.gather(*(unit() for _ in range(count)))


async def test_connection_that_waits_for_the_first_one_is_closed(pg: PostgresJudge) -> None:
    """Scenario: SQLAlchemy asks the first connection about the server; the second waits for that,
    and is cancelled there.
    Outcome: its backend is gone when the next connection is opened."""
    asks, goes_on = asyncio.Event(), asyncio.Event()
    made: list[object] = []

    class Counted(asyncpg.Connection):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(None)

    async def wait(_: object) -> None:
        asks.set()
        await goes_on.wait()

    connect_args = {"ssl": False, "connection_class": Counted}
    async for db in opened(pg, pool_size=3, max_overflow=0, connect_args=connect_args):
        engine = (await db.engine()).sync_engine
        event.listen(engine, "connect", lambda raw, _: raw.run_async(wait), insert=True)
        first = asyncio.create_task(transactional(write)(db, "kept"))
        await asks.wait()
        second = asyncio.create_task(transactional(write)(db, "never"))
        while len(made) < 2:
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        goes_on.set()
        await first
        await in_parallel(db, 3)
        while len(await pg.backends()) > 3:
            await asyncio.sleep(0)
        assert len(made) == 4
    assert await pg.texts() == ["kept"] * 4
