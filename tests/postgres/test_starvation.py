"""A full pool: who can never get a connection is refused at once.

The pools have their default timeout of 30 seconds; every test ends long before.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.pools import (
    AT_ONCE_S,
    alone,
    nested,
    out_of,
    pool_of,
    until_waiting,
)
from tests.postgres.watching import pool_of_one
from txkit import (
    Database,
    PoolStarvationError,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_session,
    run_in_new_ctx,
    transactional,
)


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_units_nested_one_deeper_than_the_pool_are_refused_at_once(
    pg: PostgresJudge, size: int
) -> None:
    async with pool_of(pg, size) as db, asyncio.timeout(AT_ONCE_S):
        with pytest.raises(PoolStarvationError) as caught:
            await new_context(nested)(db, size + 1)
        name = f"{nested.__module__}.nested"
        assert caught.value.function == name
        assert caught.value.holders == (name,)
        assert caught.value.database is db
        assert await out_of(db) == 0
        assert await pg.texts() == []
        await new_context(nested)(db, size)
        assert len(await pg.texts()) == size


async def test_error_names_every_holder_and_says_what_to_do(pg: PostgresJudge) -> None:
    @transactional(propagation="not_supported")
    async def in_autocommit(db: Database) -> None:
        await write(db, "durable")
        with pytest.raises(PoolStarvationError) as caught:
            await new_context(name="audit")(write)(db, "never")
        told.append(caught.value)

    told: list[PoolStarvationError] = []
    async with pool_of(pg, 2) as db, asyncio.timeout(AT_ONCE_S):
        async with transactional(name="import_day"):
            await write(db, "kept")
            await in_autocommit(db)
    (error,) = told
    assert error.function == "audit"
    assert set(error.holders) == {
        "import_day",
        in_autocommit.__module__ + "." + in_autocommit.__qualname__,
    }
    words = ["'audit'", "app", "all 2 connections", "'import_day'", "in_autocommit", "pool_size="]
    for word in [*words, "max_overflow=", "@transactional", "commit_db_session(db)"]:
        assert word in str(error)
    assert await pg.texts() == ["kept", "durable"] or await pg.texts() == ["durable", "kept"]


async def test_overflow_counts(pg: PostgresJudge) -> None:
    async with pool_of(pg, 1, max_overflow=1) as db, asyncio.timeout(AT_ONCE_S):
        await new_context(nested)(db, 2)
        with pytest.raises(PoolStarvationError, match="all 2 connections"):
            await new_context(nested)(db, 3)
        assert await out_of(db) == 0


async def test_pool_without_a_limit_has_room(pg: PostgresJudge) -> None:
    async with pool_of(pg, 1, max_overflow=-1) as db:
        await new_context(nested)(db, 5)
    assert len(await pg.texts()) == 5


async def test_two_databases_do_not_mix(pg: PostgresJudge) -> None:
    """Scenario: the inner unit's own pool has room, and its caller holds another one's connection."""
    async with pool_of(pg, 1) as db, pool_of(pg, 1, name="other") as other:
        async with asyncio.timeout(AT_ONCE_S), transactional():
            await write(db, "a")
            await new_context(write)(other, "b")
            with pytest.raises(PoolStarvationError) as caught:
                await new_context(write)(db, "never")
            assert caught.value.database is db
    assert sorted(await pg.texts()) == ["a", "b"]


async def test_caller_that_committed_by_hand_holds_nothing(pg: PostgresJudge) -> None:
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S), transactional():
        await write(db, "a")
        await commit_db_session(db)
        await new_context(write)(db, "b")
        await write(db, "c")
    assert await pg.texts() == ["a", "b", "c"]


async def test_session_outside_any_context_is_refused_too(pg: PostgresJudge) -> None:
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S), transactional(name="import_day"):
        await write(db, "a")
        async with new_non_ctx_session(db) as session:
            with pytest.raises(PoolStarvationError, match="import_day"):
                await session.execute(text("SELECT 1"))


async def test_plain_connection_of_the_engine_inside_a_boundary_is_refused_too(
    pg: PostgresJudge,
) -> None:
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S), transactional(name="import_day"):
        await write(db, "a")
        with pytest.raises(PoolStarvationError, match="import_day"):
            async with (await db.engine()).connect():
                raise AssertionError
    assert await pg.texts() == ["a"]


async def test_unit_refused_goes_on_once_there_is_room(pg: PostgresJudge) -> None:
    """Scenario: the refused unit's own session asks again after its caller's commit by hand."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):

        async def caller() -> None:
            await write(db, "a")
            await new_context(inner)(await db_session(db))

        async def inner(callers: Any) -> None:
            with pytest.raises(PoolStarvationError):
                await write(db, "b")
            await callers.commit()
            await write(db, "b")

        await transactional(caller)()
    assert await pg.texts() == ["a", "b"]


async def awaited(child: Any) -> None:
    await asyncio.create_task(child)


async def gathered(child: Any) -> None:
    await asyncio.gather(asyncio.sleep(0), child)


async def gathered_twice(child: Any) -> None:
    await asyncio.gather(asyncio.gather(asyncio.sleep(0), child), asyncio.sleep(0))


async def in_a_group(child: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child)


async def in_a_group_of_anyio(child: Any) -> None:
    async def run() -> None:
        await child

    async with anyio.create_task_group() as group:
        group.start_soon(run)


async def waited_for(child: Any) -> None:
    await asyncio.wait_for(child, 60)


async def waited_for_together(child: Any) -> None:
    (done,), _ = await asyncio.wait({asyncio.ensure_future(child)})
    done.result()


async def shielded(child: Any) -> None:
    await asyncio.shield(child)


WAYS = [
    awaited,
    gathered,
    gathered_twice,
    in_a_group,
    in_a_group_of_anyio,
    waited_for,
    waited_for_together,
    shielded,
]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@each_way
async def test_caller_that_waits_in_another_task_is_named_at_once(
    pg: PostgresJudge, way: Any
) -> None:
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):
        with pytest.raises((PoolStarvationError, BaseExceptionGroup)) as caught:
            async with transactional(name="import_day"):
                await write(db, "lost")
                await way(run_in_new_ctx(write, db, "never"))
        error = alone(caught.value)
        assert isinstance(error, PoolStarvationError)
        assert error.holders == ("import_day",)
        assert await out_of(db) == 0
        await transactional(write)(db, "after")
    assert await pg.texts() == ["after"]


@each_way
async def test_circle_that_the_caller_closes_later_is_seen(pg: PostgresJudge, way: Any) -> None:
    """Scenario: the unit waits already when its caller begins to wait for it."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):

        async def awaiting(task: asyncio.Task[None]) -> None:
            await task

        with pytest.raises((PoolStarvationError, BaseExceptionGroup)):
            async with transactional():
                await write(db, "lost")
                task = asyncio.create_task(run_in_new_ctx(write, db, "never"))
                await until_waiting(db, 1)
                await way(awaiting(task))
        assert await out_of(db) == 0
        await transactional(write)(db, "after")
    assert await pg.texts() == ["after"]
