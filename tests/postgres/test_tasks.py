"""Tasks that are at work when their boundary ends, and threads: connections and backends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.watching import backend_pid, pool_of_one, until_idle
from txkit import (
    ConcurrentSessionUseError,
    Database,
    db_session,
    new_context,
    set_rollback_only,
    transactional,
)

_SLEEPS = (
    "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
)


async def sleep(db: Database) -> None:
    await (await db_session(db)).execute(text("SELECT pg_sleep(60)"))


async def asleep(pg: PostgresJudge) -> None:
    while not await pg.fetch(_SLEEPS):
        await asyncio.sleep(0)


@pytest.mark.parametrize("propagation", ["required", "supports"], ids=["transaction", "autocommit"])
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
async def test_busy_connection_is_discarded(
    pg: PostgresJudge, propagation: str, fails: bool
) -> None:
    """Scenario: a task is in a statement when the boundary ends.
    Outcome: the statement is gone from the server, and the next unit has another backend."""
    async with pool_of_one(pg) as db:
        before = await transactional(backend_pid)(db)
        left: list[asyncio.Task[Any]] = []

        @transactional(propagation=propagation)
        async def unit() -> None:
            left.append(asyncio.create_task(sleep(db)))
            await asleep(pg)
            if fails:
                raise Boom

        with pytest.raises(Boom if fails else ConcurrentSessionUseError):
            await unit()
        assert await until_idle(pg) < 1
        with pytest.raises(Exception):  # noqa: B017 - the driver's, as it comes
            await left[0]
        assert await transactional(backend_pid)(db) != before
        await transactional(write)(db, "kept")
    assert await pg.texts() == ["kept"]


async def test_child_does_not_come_between_a_statement_and_its_answer(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: the user does not wait for its child, but for its statement, in a savepoint.
    Outcome: what the child wrote would have gone with the savepoint; so it is not written."""

    @transactional
    async def unit() -> None:
        async def child() -> None:
            await asleep(pg)
            try:
                with pytest.raises(ConcurrentSessionUseError):
                    await write(db, "never")
            finally:
                await pg.fetch(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                    " WHERE wait_event = 'PgSleep' AND datname = current_database()"
                )

        session = await db_session(db)
        await write(db, "unit")
        task = asyncio.create_task(child())
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await sleep(db)
        await task

    await unit()
    assert await pg.texts() == ["unit"]


async def test_idle_connection_is_used_again(pg: PostgresJudge) -> None:
    async with pool_of_one(pg) as db:
        before = await transactional(backend_pid)(db)
        go_on, uses = asyncio.Event(), asyncio.Event()

        async def child() -> None:
            await write(db, "half")
            uses.set()
            await go_on.wait()

        @transactional
        async def unit() -> asyncio.Task[None]:
            task = asyncio.create_task(child())
            tasks.append(task)
            await uses.wait()
            return task

        tasks: list[asyncio.Task[None]] = []
        with pytest.raises(ConcurrentSessionUseError):
            await unit()
        go_on.set()
        await tasks[0]
        assert await transactional(backend_pid)(db) == before
    assert await pg.texts() == []


async def test_task_that_waits_for_a_connection_discards_what_it_gets(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: the pool is empty, and the boundary ends while its task still waits for it."""
    release = asyncio.Event()
    holding = asyncio.Semaphore(0)

    @transactional
    async def holder() -> None:
        await write(db, "holder")
        holding.release()
        await release.wait()

    holders = [asyncio.create_task(holder()) for _ in range(5)]
    for _ in holders:
        await holding.acquire()
    left: list[asyncio.Task[None]] = []

    @transactional
    async def unit() -> None:
        left.append(asyncio.create_task(write(db, "never")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(ConcurrentSessionUseError) as caught:
        await unit()
    assert not hasattr(caught.value, "__notes__")
    release.set()
    await asyncio.gather(*holders)
    with pytest.raises(Exception, match="has ended"):
        await left[0]
    assert await pg.texts() == ["holder"] * 5


class TestThreads:
    async def test_question_from_a_thread_is_refused(self, db: Database, pg: PostgresJudge) -> None:
        @transactional
        async def unit() -> None:
            await write(db, "kept")
            with pytest.raises(ConcurrentSessionUseError, match="was called in thread") as caught:
                await asyncio.to_thread(set_rollback_only)
            assert caught.value.task != threading.current_thread().name

        await unit()
        assert await pg.texts() == ["kept"]

    @pytest.mark.parametrize("decorated", [False, True])
    async def test_loop_in_a_thread_is_refused(
        self, db: Database, pg: PostgresJudge, decorated: bool
    ) -> None:
        function = transactional(write) if decorated else write

        @transactional
        async def unit() -> None:
            await write(db, "kept")
            with pytest.raises(ConcurrentSessionUseError, match="@new_context"):
                await asyncio.to_thread(lambda: asyncio.run(function(db, "never")))

        await unit()
        assert await pg.texts() == ["kept"]

    async def test_session_in_a_thread_is_refused(self, db: Database, pg: PostgresJudge) -> None:
        @transactional
        async def unit() -> None:
            session = await db_session(db)
            await write(db, "kept")
            with pytest.raises(ConcurrentSessionUseError, match="was called in thread"):
                await asyncio.to_thread(session.sync_session.execute, text("SELECT 1"))

        await unit()
        assert await pg.texts() == ["kept"]

    async def test_unit_of_its_own_in_a_thread_works(self, db: Database, pg: PostgresJudge) -> None:
        @transactional
        async def unit() -> None:
            await write(db, "unit")
            own = new_context(write)
            await asyncio.to_thread(lambda: asyncio.run(own(db, "thread")))

        await unit()
        assert sorted(await pg.texts()) == ["thread", "unit"]
