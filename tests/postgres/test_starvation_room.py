"""A full pool: who may still get a connection waits for it, as in SQLAlchemy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.pools import (
    AT_ONCE_S,
    lookout_of,
    out_of,
    pool_of,
    until_looked_again,
    until_waiting,
)
from tests.postgres.watching import pool_of_one
from txkit import (
    PoolStarvationError,
    atomic,
    run_in_new_ctx,
    transactional,
)


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


async def test_function_that_joined_in_another_task_may_make_room(pg: PostgresJudge) -> None:
    """Scenario: the boundary waits for both, an atomic block of its own and a unit beside it.
    Outcome: the unit gets the connection when the block has committed."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):

        @atomic
        async def joined() -> None:
            await write(db, "joined")
            await until_waiting(db, 1)
            await until_looked_again(db)

        async def beside() -> None:
            while await out_of(db) < 1:
                await asyncio.sleep(0)
            await run_in_new_ctx(write, db, "beside")

        async with transactional():
            await asyncio.gather(joined(), beside())
    assert await pg.texts() == ["joined", "beside"]


async def test_function_that_joined_in_another_task_and_goes_nowhere(pg: PostgresJudge) -> None:
    """Scenario: it waits for the unit that asks, and for nothing else."""
    async with pool_of_one(pg) as db, asyncio.timeout(AT_ONCE_S):

        async def joined() -> None:
            await write(db, "never")
            await unit

        async def beside() -> None:
            while await out_of(db) < 1:
                await asyncio.sleep(0)
            await run_in_new_ctx(write, db, "never")

        unit = asyncio.create_task(beside())
        with pytest.raises(PoolStarvationError, match="import_day"):
            async with transactional(name="import_day"):
                await asyncio.gather(joined(), asyncio.sleep(0))
    assert await pg.texts() == []
