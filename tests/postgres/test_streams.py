"""Decorated async generators on PostgreSQL: connections, tasks, cancellations."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.test_cancellation import blocked, hold_commits, release_commits
from tests.postgres.test_tasks import asleep
from tests.postgres.watching import backend_pid, pool_of_one, until_idle
from txkit import (
    ConcurrentSessionUseError,
    ContextClosedError,
    Database,
    after_completion,
    db_session,
    transactional,
)


@transactional
async def pids(db: Database, steps: int = 3) -> AsyncIterator[int]:
    for _ in range(steps):
        yield await backend_pid(db)


async def in_a_task(rows: AsyncIterator[Any]) -> Any:
    async def step() -> Any:
        return await anext(rows)

    return await asyncio.create_task(step())


async def test_session_stays_open_between_the_steps(db: Database, pg: PostgresJudge) -> None:
    found = []
    async for pid in pids(db):
        found.append(pid)
        assert ("idle in transaction",) in {(state,) for _, state in await pg.backends()}
    assert len(set(found)) == 1
    assert [state for _, state in await pg.backends()] == ["idle"]


async def test_steps_may_be_driven_from_different_tasks(db: Database, pg: PostgresJudge) -> None:
    """The first driver need not be finished when the second one comes."""
    rows = pids(db)
    first = await anext(rows)
    assert await in_a_task(rows) == first
    assert await anext(rows) == first
    with pytest.raises(StopAsyncIteration):
        await anext(rows)
    await until_idle(pg)


async def test_producer_task_and_consumer_task(db: Database, pg: PostgresJudge) -> None:
    """Scenario: the framework reads from the generator in one task, and closes it in another."""
    rows = pids(db)
    await in_a_task(rows)
    await asyncio.create_task(rows.aclose())  # type: ignore[attr-defined]
    assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    await until_idle(pg)


async def test_step_that_leaves_a_task_behind_cannot_go_on(db: Database, pg: PostgresJudge) -> None:
    go_on, uses = asyncio.Event(), asyncio.Event()
    left: list[asyncio.Task[None]] = []

    async def child() -> None:
        await write(db, "half")
        uses.set()
        await go_on.wait()

    @transactional
    async def stream() -> AsyncIterator[int]:
        left.append(asyncio.create_task(child()))
        await uses.wait()
        yield 1

    with pytest.raises(ConcurrentSessionUseError):
        async for _ in stream():
            pass
    go_on.set()
    await left[0]
    assert await pg.texts() == []


@transactional
async def sleeps(db: Database, told: list[str] | None = None) -> AsyncIterator[int]:
    if told is not None:
        after_completion(told.append)
    await write(db, "lost")
    yield 1
    await (await db_session(db)).execute(text("SELECT pg_sleep(60)"))


class TestCancelled:
    async def test_in_a_step_the_statement_is_gone(self, db: Database, pg: PostgresJudge) -> None:
        told: list[str] = []

        async def consume() -> None:
            async for _ in sleeps(db, told):
                pass

        task = asyncio.create_task(consume())
        await asleep(pg)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await until_idle(pg) < 2
        assert told == ["rolled_back"]
        assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await pg.texts() == []

    async def test_by_a_scope_in_a_step(self, db: Database, pg: PostgresJudge) -> None:
        async def consume() -> None:
            async for _ in sleeps(db):
                pass

        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            await asleep(pg)
            group.cancel_scope.cancel()
        assert await until_idle(pg) < 2
        assert await pg.texts() == []

    async def test_between_the_steps_it_is_closed_with_its_consumer(
        self, pg: PostgresJudge
    ) -> None:
        """Scenario: what a client that disconnects leaves: nobody closes the generator."""
        async with pool_of_one(pg) as db:
            reached, told = asyncio.Event(), []

            async def consume() -> None:
                async for _ in sleeps(db, told):
                    reached.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(consume())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            gc.collect()
            await transactional(write)(db, "next")  # waits for the one connection
            assert told == ["rolled_back"]
        assert await pg.texts() == ["next"]

    async def test_while_it_commits_the_commit_is_finished(
        self, db: Database, pg: PostgresJudge
    ) -> None:
        await hold_commits(pg)
        told: list[str] = []

        @transactional
        async def stream() -> AsyncIterator[int]:
            after_completion(told.append)
            await write(db, "kept")
            yield 1

        async def consume() -> None:
            async for _ in stream():
                pass

        task = asyncio.create_task(consume())
        await blocked(pg, "COMMIT")
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await release_commits(pg)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == ["committed"]
        assert await pg.texts() == ["kept"]


async def test_context_of_a_stream_that_is_over_is_closed(db: Database) -> None:
    @transactional
    async def stream() -> AsyncIterator[Any]:
        async def late() -> None:
            await ended.wait()
            await db_session(db)

        ended = asyncio.Event()
        task = asyncio.create_task(late())
        yield ended
        yield task

    async with aclosing(stream()) as rows:
        ended, task = await anext(rows), await anext(rows)
    ended.set()
    with pytest.raises(ContextClosedError):
        await task
