"""A full pool under load: each call is whole or refused, and nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.pools import (
    AT_ONCE_S,
    alone,
    nested,
    out_of,
    pool_of,
)
from tests.postgres.watching import until_idle
from txkit import (
    PoolStarvationError,
    new_context,
    run_in_new_ctx,
    transactional,
)

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
                assert isinstance(alone(outcome), PoolStarvationError)
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
