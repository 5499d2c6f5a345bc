"""The Database by itself: lazy, its hooks, its end."""

from __future__ import annotations

import asyncio
import gc

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.conftest import PostgresJudge
from tests.notes import write
from txkit import (
    Database,
    close_db_session,
    db_session,
    new_context,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    transactional,
)


async def pid(db: Database) -> int:
    session = await db_session(db)
    found: int = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    return found


async def until_gone(judge: PostgresJudge, *pids: int) -> None:
    """Wait until the server knows none of these backends any more."""
    for one in pids or [pid for pid, _ in await judge.backends()]:
        while await judge.fetch("SELECT FROM pg_stat_activity WHERE pid = $1", one):
            await asyncio.sleep(0)


async def test_nothing_connects_before_the_first_statement(pg: PostgresJudge) -> None:
    built: list[AsyncEngine] = []

    def factory(host: str | None) -> AsyncEngine:
        assert host == "somewhere"
        built.append(create_async_engine(pg.url.replace("postgresql:", "postgresql+asyncpg:")))
        return built[-1]

    db = Database(host="somewhere", engine_factory=factory)
    assert (built, db.host) == ([], "somewhere")

    @transactional
    async def unit() -> None:
        assert built == []
        session = await db_session(db)
        assert len(built) == 1
        assert await pg.backends() == []
        await session.execute(text("SELECT 1"))
        assert [state for _, state in await pg.backends()] == ["idle in transaction"]

    await unit()
    await db.close()
    await until_gone(pg)


async def test_asking_for_the_engine_connects_nowhere(pg: PostgresJudge) -> None:
    db = Database(pg.url)
    engine = await db.engine()
    assert engine is await db.engine()
    assert await pg.backends() == []
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await db.close()


async def test_before_session_is_awaited_before_every_session_of_every_kind(
    pg: PostgresJudge,
) -> None:
    asked: list[Database] = []

    async def before(database: Database) -> None:
        await asyncio.sleep(0)
        asked.append(database)

    async with Database(pg.url, before_session=before) as db:

        @transactional
        async def unit() -> None:
            assert asked == []
            await db_session(db)
            await db_session(db)
            assert len(asked) == 1
            await close_db_session(db)
            await db_session(db)
            assert len(asked) == 2
            await new_context(inner)()

        async def inner() -> None:
            await db_session(db)
            assert len(asked) == 3

        await unit()
        async with new_non_ctx_session(db):
            assert len(asked) == 4
        async with new_non_ctx_atomic_session(db):
            assert len(asked) == 5
        assert asked == [db] * 5


async def test_what_before_session_raises_leaves_and_no_session_is_there(pg: PostgresJudge) -> None:
    async def before(_: Database) -> None:
        raise LookupError

    async with Database(pg.url, before_session=before) as db:

        @transactional
        async def unit() -> None:
            with pytest.raises(LookupError):
                await db_session(db)

        await unit()
        assert await pg.backends() == []


async def test_close_frees_the_pool_and_the_database_can_be_used_again(pg: PostgresJudge) -> None:
    async with Database(pg.url) as db:
        first = await transactional(pid)(db)
        engine = await db.engine()
        assert [found for found, _ in await pg.backends()] == [first]
    await until_gone(pg, first)

    async with db:
        second = await transactional(pid)(db)
        assert second != first
        assert await db.engine() is not engine
    await until_gone(pg, second)
    await db.close()
    await db.close()


async def test_close_lets_a_connection_in_use_finish(pg: PostgresJudge) -> None:
    db = Database(pg.url)
    found: list[int] = []

    @transactional
    async def unit() -> None:
        await write(db, "kept")
        found.append(await pid(db))
        await db.close()
        assert [state for _, state in await pg.backends()] == ["idle in transaction"]

    await unit()
    assert await pg.texts() == ["kept"]
    await until_gone(pg, *found)
    assert await pg.backends() == []


async def test_close_cancelled_closes_all_the_same(pg: PostgresJudge) -> None:
    """Scenario: three idle connections, cancelled at each of the first steps in turn, twice."""
    for steps in range(8):
        db = Database(pg.url, connect_args={"ssl": False})
        found = await several_pids(db, 3)
        task = asyncio.create_task(db.close())
        await asyncio.sleep(0)  # a task that never ran has done nothing
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await until_gone(pg, *found)


async def several_pids(db: Database, number: int) -> list[int]:
    together = asyncio.Barrier(number)

    @new_context
    async def unit() -> int:
        found = await pid(db)
        await together.wait()
        return found

    return await asyncio.gather(*(unit() for _ in range(number)))


async def test_dropped_database_closes_its_pool(pg: PostgresJudge) -> None:
    """Scenario: nobody closed it, and nobody holds it any more; the loop goes on."""

    async def use_and_drop() -> int:
        async with new_non_ctx_session(Database(pg.url)) as session:
            found: int = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            return found

    found = await use_and_drop()
    gc.collect()
    await until_gone(pg, found)


async def test_repr_shows_name_and_host(pg: PostgresJudge) -> None:
    db = Database("postgresql://u:pw@h:5433/shop")
    assert repr(db) == "<Database 'shop' on h:5433>"
    assert repr(Database("sqlite:///shop.db")) == "<Database 'shop'>"
