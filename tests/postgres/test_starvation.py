"""A full pool: who can never get a connection is refused at once, and everybody else waits.

The pools have their default timeout of 30 seconds; every test ends long before.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tests.conftest import PostgresJudge, opened
from tests.notes import Boom, write
from tests.postgres.watching import pool_of_one, until_idle
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
from txkit._core.starvation import Lookout

AT_ONCE_S = 3
"""Far below the pool's timeout, and far above what a busy machine takes."""


@contextlib.asynccontextmanager
async def pool_of(judge: PostgresJudge, size: int, **options: Any) -> AsyncIterator[Database]:
    async for db in opened(
        judge, **{"pool_size": size, "max_overflow": 0, "name": "app", **options}
    ):
        yield db


def _alone(error: BaseException) -> BaseException:
    """Give the one error that a group holds."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


async def out_of(db: Database) -> int:
    """Give how many connections are out of the pool."""
    pool: Any = (await db.engine()).pool
    return int(pool.checkedout())


async def lookout_of(db: Database) -> Lookout:
    """Give who looks out on the Database's pool; it is there once a unit has asked."""
    pool: Any = (await db.engine()).sync_engine.pool
    while not hasattr(pool, "txkit_lookout"):
        await asyncio.sleep(0)
    lookout: Lookout = pool.txkit_lookout
    return lookout


async def until_waiting(db: Database, number: int) -> None:
    """Wait until so many wait for a connection."""
    lookout = await lookout_of(db)
    while len(lookout.waiting) < number:
        await asyncio.sleep(0)


async def until_looked_again(db: Database, times: int = 2) -> None:
    """Wait until circles that were closed late have been looked for, so many times."""
    lookout: Any = await lookout_of(db)
    for _ in range(times):
        timer = lookout._timer
        while lookout._timer is timer:
            await asyncio.sleep(0)


async def nested(db: Database, depth: int) -> None:
    """Write on so many connections, each in a unit inside the one before."""
    await write(db, f"at {depth}")
    if depth > 1:
        await new_context(nested)(db, depth - 1)


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
        error = _alone(caught.value)
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


async def test_cancellation_wins_over_a_refusal(pg: PostgresJudge) -> None:
    """Scenario: a unit is cancelled in the step in which it is told that waiting is in vain."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):
        async with transactional():
            await write(db, "kept")
            task = asyncio.create_task(run_in_new_ctx(write, db, "never"))
            await until_waiting(db, 1)
            lookout = await lookout_of(db)

            async def cancel_as_it_is_refused() -> None:
                while not lookout.refused:
                    await asyncio.sleep(0)
                task.cancel()

            await asyncio.gather(cancel_as_it_is_refused(), asyncio.wait({task}))
            assert task.cancelled()
    assert await pg.texts() == ["kept"]


async def test_unit_that_a_stranger_will_make_room_for_waits(pg: PostgresJudge) -> None:
    """Scenario: one connection is held by the caller, the other one by somebody who comes to an end."""
    async with pool_of(pg, 2) as db, asyncio.timeout(AT_ONCE_S):
        go_on = asyncio.Event()

        @transactional
        async def stranger() -> None:
            await write(db, "stranger")
            await go_on.wait()

        async def let_go() -> None:
            await until_waiting(db, 1)
            await until_looked_again(db)
            go_on.set()

        others = asyncio.gather(stranger(), let_go())
        while await out_of(db) < 1:
            await asyncio.sleep(0)
        async with transactional():
            await write(db, "caller")
            await run_in_new_ctx(write, db, "inner")
        await others
    assert sorted(await pg.texts()) == ["caller", "inner", "stranger"]


async def test_child_that_nobody_awaits_waits_for_its_parents_end(pg: PostgresJudge) -> None:
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):
        kept = set()
        async with transactional():
            await write(db, "parent")
            child = asyncio.create_task(run_in_new_ctx(write, db, "child"))
            kept.add(child)
            child.add_done_callback(kept.discard)
            await until_waiting(db, 1)
            await until_looked_again(db)
            await write(db, "parent again")
        await child
    assert await pg.texts() == ["parent", "parent again", "child"]


async def test_connection_of_a_users_own_may_come_back(pg: PostgresJudge) -> None:
    """Scenario: the caller holds nothing; a plain connection of the engine's takes the pool's one."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):
        async with (await db.engine()).connect() as connection:
            await connection.execute(text("SELECT 1"))
            unit = asyncio.create_task(transactional(write)(db, "a"))
            await until_waiting(db, 1)
        await unit
    assert await pg.texts() == ["a"]


async def test_pool_timeout_is_still_sqlalchemys(pg: PostgresJudge) -> None:
    async with pool_of(pg, 1, pool_timeout=0.01) as db, asyncio.timeout(AT_ONCE_S):
        async with transactional():
            await write(db, "a")
            with pytest.raises(PoolTimeoutError):
                await Detached().run(run_in_new_ctx(write, db, "never"))
            assert not (await lookout_of(db)).waiting
    assert await pg.texts() == ["a"]


class Detached:
    """Runs something without waiting for its task, as far as anybody can tell."""

    async def run(self, child: Any) -> None:
        ended = asyncio.Event()
        task = asyncio.create_task(child)

        def tell(_: object) -> None:
            ended.set()

        task.add_done_callback(tell)
        await ended.wait()
        task.result()


async def test_who_was_cancelled_while_waiting_waits_no_longer(pg: PostgresJudge) -> None:
    """Outcome: he doesn't count as waiting for the next one who asks."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):
        async with transactional():
            await write(db, "a")
            task = asyncio.create_task(run_in_new_ctx(write, db, "never"))
            await until_waiting(db, 1)
            task.cancel()
            await asyncio.wait({task})
            assert not (await lookout_of(db)).waiting
    assert await pg.texts() == ["a"]


CALLERS = 50


@pytest.mark.parametrize("by", ["await", "gather", "group"])
async def test_load_of_callers_that_open_a_context_each_ends_quickly(
    pg: PostgresJudge, by: str
) -> None:
    """Scenario: 50 callers at once over a pool of 5, each with a transaction, and a new context in it.
    Outcome: each call is whole or refused, and nothing is left behind."""
    async with pool_of(pg, 5) as db:

        @new_context
        async def inner(number: int) -> None:
            await write(db, f"inner {number}")

        @transactional
        async def caller(number: int) -> None:
            await write(db, f"outer {number}")
            if by == "await":
                await inner(number)
            elif by == "gather":
                await asyncio.gather(inner(number), asyncio.sleep(0))
            else:
                async with asyncio.TaskGroup() as group:
                    group.create_task(inner(number))

        async with asyncio.timeout(20):
            done = await asyncio.gather(*map(caller, range(CALLERS)), return_exceptions=True)
        assert await out_of(db) == 0
        await until_idle(pg)
        texts = set(await pg.texts())
        for number, outcome in enumerate(done):
            rows = {f"outer {number}", f"inner {number}"}
            if outcome is None:
                assert rows <= texts
            else:
                assert isinstance(_alone(outcome), PoolStarvationError)
                assert not rows & texts
        assert any(outcome is None for outcome in done)
        assert not await pg.fetch("SELECT FROM pg_locks WHERE relation = 'note'::regclass")
        await new_context(nested)(db, 5)


async def test_refused_unit_whose_caller_goes_on_leaves_room_for_it(pg: PostgresJudge) -> None:
    """Scenario: callers that fill the pool swallow the refusal of what they call."""
    async with pool_of(pg, 3) as db, asyncio.timeout(AT_ONCE_S):

        @transactional
        async def caller(number: int) -> str:
            await write(db, f"outer {number}")
            try:
                await run_in_new_ctx(write, db, f"inner {number}")
            except PoolStarvationError:
                return "refused"
            return "whole"

        done = await asyncio.gather(*map(caller, range(12)))
    texts = await pg.texts()
    assert sum(line.startswith("outer") for line in texts) == 12
    assert sum(line.startswith("inner") for line in texts) == done.count("whole")
    assert done.count("whole") > 0


async def test_failing_callers_are_not_held_up(pg: PostgresJudge) -> None:
    async with pool_of(pg, 2) as db, asyncio.timeout(AT_ONCE_S):

        @transactional
        async def caller() -> None:
            await write(db, "never")
            await run_in_new_ctx(fail)

        async def fail() -> None:
            await write(db, "never")
            raise Boom

        done = await asyncio.gather(*(caller() for _ in range(10)), return_exceptions=True)
        assert {type(one) for one in done} <= {Boom, PoolStarvationError}
    assert await pg.texts() == []
