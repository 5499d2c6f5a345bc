"""One writer: a unit that can't get what its caller holds is told at once, in whatever task it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from tests.conftest import SqliteJudge
from tests.notes import count, metadata, write
from txkit import (
    Database,
    PoolStarvationError,
    atomic,
    commit_db_session,
    db_session,
    new_context,
    run_in_new_ctx,
    transactional,
)

AT_ONCE_S = 10
"""For all of a test; who waits for the lock gets the driver's error after 5 seconds."""


async def awaited(child: Any) -> None:
    await asyncio.create_task(child)


async def gathered(child: Any) -> None:
    await asyncio.gather(asyncio.sleep(0), child)


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


@pytest.mark.parametrize(
    "way",
    [awaited, gathered, in_a_group, in_a_group_of_anyio, waited_for],
    ids=lambda way: way.__name__,
)
async def test_caller_that_waits_in_another_task_is_named_at_once(
    lite: Database, sqlite_judge: SqliteJudge, way: Any
) -> None:
    async with asyncio.timeout(AT_ONCE_S):
        with pytest.raises((PoolStarvationError, BaseExceptionGroup)) as caught:
            async with transactional(name="import_day"):
                await write(lite, "lost")
                await way(run_in_new_ctx(write, lite, "never"))
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, PoolStarvationError)
    assert error.holders == ("import_day",)
    assert await sqlite_judge.texts() == []


async def test_child_that_nobody_awaits_waits_for_its_parents_end(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    has_asked = asyncio.Event()

    async def child() -> None:
        await db_session(lite)
        has_asked.set()
        await write(lite, "child")

    async with transactional():
        await write(lite, "parent")
        task = asyncio.create_task(run_in_new_ctx(child))
        await has_asked.wait()
        await write(lite, "parent again")
    await task
    assert await sqlite_judge.texts() == ["parent", "parent again", "child"]


async def test_caller_in_another_task_that_committed_holds_nothing(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    async with transactional():
        await write(lite, "caller")
        await commit_db_session(lite)
        await asyncio.gather(run_in_new_ctx(write, lite, "unit"))
    assert await sqlite_judge.texts() == ["caller", "unit"]


async def test_the_one_connection_in_memory_is_named_as_what_is_missing() -> None:
    """Also for a unit that only reads, since there is nothing else to read on."""
    async with Database("sqlite://", name="memory") as db, asyncio.timeout(AT_ONCE_S):
        async with (await db.engine()).begin() as connection:
            await connection.run_sync(metadata.create_all)
        async with transactional(name="import_day"):
            await write(db, "kept")
            with pytest.raises(PoolStarvationError, match="the one connection") as caught:
                await asyncio.gather(new_context(read_only=True)(count)(db))
            assert caught.value.holders == ("import_day",)
        assert await transactional(count)(db) == 1


async def test_function_that_joined_in_another_task_may_free_the_lock(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    """Scenario: the boundary waits for both, an atomic block of its own and a unit beside it."""
    has_written = asyncio.Event()

    @atomic
    async def joined() -> None:
        await write(lite, "joined")
        has_written.set()
        await write(lite, "joined again")

    async def beside() -> None:
        await has_written.wait()
        await run_in_new_ctx(write, lite, "beside")

    async with transactional():
        await asyncio.gather(joined(), beside())
    assert await sqlite_judge.texts() == ["joined", "joined again", "beside"]
