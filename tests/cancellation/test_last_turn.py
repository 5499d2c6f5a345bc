"""Cancelled in the last turn of the loop before COMMIT is sent: rolled back all the same.

The commit runs in a task of its own, which begins a turn later than the unit waits for it.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.told import rolled_back, watch
from tests.ways import COMMITS, UNITS, End, Unit, each
from txkit import Database, before_commit, transactional


def cancel_next() -> None:
    """Cancel the task before anything that it is still to begin."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


async def leaves_cancelled(work: asyncio.Task[None]) -> None:
    with pytest.raises(asyncio.CancelledError) as raised:
        await work
    assert not getattr(raised.value, "__notes__", [])


@each("unit", UNITS)
async def test_end_of_a_unit_is_not_begun(db: Database, pg: PostgresJudge, unit: Unit) -> None:
    told: list[str] = []

    async def work() -> None:
        async with unit(db):
            await write(db, "lost")
            watch(told, "unit")
            before_commit(cancel_next)

    await leaves_cancelled(asyncio.create_task(work()))
    assert told == ["unit: before", *rolled_back("unit")]
    assert await pg.texts() == []


@each("commit", COMMITS)
async def test_commit_by_hand_is_not_begun(db: Database, pg: PostgresJudge, commit: End) -> None:
    async def work() -> None:
        async with transactional():
            await write(db, "lost")
            cancel_next()
            await commit(db)

    await leaves_cancelled(asyncio.create_task(work()))
    assert await pg.texts() == []


async def test_commit_that_has_begun_is_finished(db: Database, pg: PostgresJudge) -> None:
    """Scenario: the same, two turns later."""
    told: list[str] = []

    def cancel_later() -> None:
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, task.cancel)

    @transactional
    async def unit() -> None:
        await write(db, "kept")
        watch(told, "unit")
        before_commit(cancel_later)

    task = asyncio.create_task(unit())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told[-1] == "unit: committed"
    assert await pg.texts() == ["kept"]
