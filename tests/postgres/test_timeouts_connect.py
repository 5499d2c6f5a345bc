"""The first connection of an engine, cut short at every step of it: nothing else leaves, nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.watching import pool_of_one, until_idle
from txkit import TransactionTimeoutError, transactional


async def steps_of(pg: PostgresJudge, cut_short: Callable[[asyncio.Task[None]], None]) -> int:
    """Cut a unit on a new engine short after one step of the loop, after two, until it is done."""
    steps = 0
    while True:
        steps += 1
        async with pool_of_one(pg) as db:
            task = asyncio.create_task(transactional(write)(db, "one row or none"))
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.done():
                return steps
            cut_short(task)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_cancellation_leaves_at_every_step(pg: PostgresJudge) -> None:
    steps = await steps_of(pg, lambda task: task.cancel())
    assert steps > 10
    assert await until_idle(pg) < 2


async def test_deadline_leaves_at_every_step(pg: PostgresJudge) -> None:
    """Limits from none at all up to what a first unit takes: over time, or committed."""
    outcomes: list[bool] = []
    while outcomes[-3:] != [True] * 3:
        async with pool_of_one(pg) as db:
            unit = transactional(timeout_s=0.0005 * (len(outcomes) + 1))(write)
            try:
                await unit(db, "committed")
            except TransactionTimeoutError:
                outcomes.append(False)
            else:
                outcomes.append(True)
            assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    assert False in outcomes
    assert await pg.texts() == ["committed"] * outcomes.count(True)
    assert await until_idle(pg) < 1
