"""A cancellation at any point: rolled back, and every connection returns or is discarded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import anyio
import pytest
from sqlalchemy import text

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.watching import pool_of_one, until_idle
from txkit import Database, db_session, new_context, transactional


async def pids(db: Database) -> set[int]:
    """The backends of a full pool."""
    together = asyncio.Barrier(5)

    @new_context
    async def pid() -> int:
        session = await db_session(db)
        found = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await together.wait()
        return found

    return set(await asyncio.gather(*(pid() for _ in range(5))))


async def test_requests_cancelled_between_statements_keep_their_backends(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: 200 requests over a pool of 5, each cancelled where no statement runs.
    Outcome: the same five backends, and no row."""
    before = await pids(db)

    @transactional
    async def request(number: int, reached: asyncio.Event) -> None:
        await write(db, f"cancelled {number}")
        reached.set()
        await asyncio.Event().wait()

    async def cancelled(number: int) -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(request(number, reached))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await asyncio.gather(*(cancelled(number) for number in range(200)))
    assert await pids(db) == before
    assert await pg.texts() == []


async def test_requests_cancelled_anywhere_leave_a_whole_pool(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: 200 requests over a pool of 5, cancelled after a random number of loop steps.
    Outcome: a full pool, idle backends, and exactly the rows of those that returned."""
    chance = random.Random(20)
    done: list[str] = []
    unknown: list[str] = []

    @transactional
    async def request(name: str) -> None:
        await write(db, name)
        await write(db, name)

    async def run(number: int) -> None:
        name = f"{number:03}"
        task = asyncio.create_task(request(name))
        for _ in range(chance.randrange(120)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            unknown.append(name)  # rolled back, or its COMMIT was finished first
        else:
            done.append(name)

    await asyncio.gather(*(run(number) for number in range(200)))
    rows = await pg.texts()
    assert len(await pids(db)) == 5
    for name in done:
        assert rows.count(name) == 2
    for name in unknown:
        assert rows.count(name) in {0, 2}
    assert unknown
    assert {state for _, state in await pg.backends()} == {"idle"}


async def test_cancelled_while_committing_finishes_the_commit(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: COMMIT waits in a deferred trigger for a lock; the task is cancelled twice there.
    Outcome: it stays cancelled, and its row is committed."""
    await hold_commits(pg)

    @transactional
    async def unit() -> None:
        await write(db, "committed")

    task = asyncio.create_task(unit())
    await blocked(pg, "COMMIT")
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    await release_commits(pg)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pg.texts() == ["committed"]


async def test_anyio_scope_cancelled_while_committing_finishes_without_spinning(
    db: Database, pg: PostgresJudge
) -> None:
    await hold_commits(pg)

    @transactional
    async def unit() -> None:
        await write(db, "committed")

    async def release(scope: anyio.CancelScope) -> None:
        await blocked(pg, "COMMIT")
        scope.cancel()
        await release_commits(pg)

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(release, scope)
            await unit()
    assert scope.cancelled_caught
    assert await pg.texts() == ["committed"]


async def test_finish_timeout_discards_the_connection(db: Database, pg: PostgresJudge) -> None:
    """Scenario: a cancelled COMMIT that would wait for ever.
    Outcome: after ``finish_timeout_s`` the connection is discarded and the cancellation leaves."""
    db.finish_timeout_s = 0.2
    await hold_commits(pg)

    @transactional
    async def unit() -> None:
        await write(db, "unknown")

    task = asyncio.create_task(unit())
    await blocked(pg, "COMMIT")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await db.engine()).pool.checkedout() == 0
    await release_commits(pg)


async def test_cancelled_while_waiting_for_a_connection_loses_none(
    db: Database, pg: PostgresJudge
) -> None:
    release = asyncio.Event()
    holding = asyncio.Semaphore(0)

    @transactional
    async def holder(number: int) -> None:
        await write(db, str(number))
        holding.release()
        await release.wait()

    @transactional
    async def waiter() -> None:
        await write(db, "never")

    holders = [asyncio.create_task(holder(number)) for number in range(5)]
    for _ in holders:
        await holding.acquire()
    waiters = [asyncio.create_task(waiter()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in waiters:
        task.cancel()
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in outcomes)
    release.set()
    await asyncio.gather(*holders)
    assert sorted(await pg.texts()) == ["0", "1", "2", "3", "4"]
    assert len(await pids(db)) == 5


async def test_closed_coroutine_terminates_its_connection(db: Database, pg: PostgresJudge) -> None:
    """Scenario: a suspended unit's coroutine is closed, as at the end of an interpreter.
    Outcome: nothing can be awaited, so its backend ends at once; no row."""

    reached = asyncio.Event()

    @transactional
    async def unit() -> None:
        await write(db, "never")
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(unit())
    await reached.wait()
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    assert (await db.engine()).pool.checkedout() == 0
    while await pg.backends():
        await asyncio.sleep(0)
    assert await pg.texts() == []
    task.cancel()
    with pytest.raises(RuntimeError, match="already awaited"):
        await task


async def hold_commits(pg: PostgresJudge) -> None:
    """Let every COMMIT of a note wait in a deferred trigger."""
    await pg.fetch(
        "CREATE FUNCTION wait_for_lock() RETURNS trigger AS $$ BEGIN"
        " PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$ LANGUAGE plpgsql"
    )
    await pg.fetch(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION wait_for_lock()"
    )
    await pg.fetch("SELECT pg_advisory_lock(42)")


async def release_commits(pg: PostgresJudge) -> None:
    await pg.fetch("SELECT pg_advisory_unlock(42)")


async def blocked(pg: PostgresJudge, query: str) -> None:
    """Wait until a backend is seen waiting for a lock in ``query``."""
    while not await pg.fetch(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE $1 || '%'",
        query,
    ):
        await asyncio.sleep(0)


async def cancelled_by_scope(db: Database, pg: PostgresJudge) -> None:
    """An anyio scope cancels again and again, at every await of what it holds."""
    async with anyio.create_task_group() as group:
        group.start_soon(transactional(sleep), db)
        await asleep(pg)
        group.cancel_scope.cancel()
    assert group.cancel_scope.cancelled_caught


async def cancelled_at_every_step(db: Database, pg: PostgresJudge) -> None:
    task = asyncio.create_task(transactional(sleep)(db))
    await asleep(pg)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()


async def asleep(pg: PostgresJudge) -> None:
    """Wait until a backend is seen at work in ``sleep``."""
    seen = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    while not await pg.fetch(seen):
        await asyncio.sleep(0)


async def sleep(db: Database) -> None:
    await (await db_session(db)).execute(text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("cancelled", [cancelled_by_scope, cancelled_at_every_step])
async def test_statement_ends_at_the_server_however_often_it_is_cancelled(
    pg: PostgresJudge, cancelled: Callable[[Database, PostgresJudge], Awaitable[None]]
) -> None:
    async with pool_of_one(pg) as db:
        await transactional(write)(db, "connected")
        await cancelled(db, pg)
        assert await until_idle(pg) < 1
        await transactional(write)(db, "another")
    assert await pg.texts() == ["connected", "another"]
