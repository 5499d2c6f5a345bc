"""A TaskGroup whose other task fails cancels a unit: the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked, hold_commits, release_commits
from tests.told import committed, rolled_back, watch
from txkit import Database, transactional


async def run(unit: Awaitable[None], fail: Callable[[], Awaitable[object]]) -> None:
    async def fails() -> None:
        await fail()
        raise Boom

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await unit
    assert raised.group_contains(Boom)


async def test_between_statements_it_is_rolled_back(db: Database, pg: PostgresJudge) -> None:
    told: list[str] = []
    reached = asyncio.Event()

    @transactional
    async def unit() -> None:
        await write(db, "lost")
        watch(told, "unit")
        reached.set()
        await asyncio.Event().wait()

    await run(unit(), reached.wait)
    assert told == rolled_back("unit")
    assert await pg.texts() == []


async def test_in_commit_it_is_finished(db: Database, pg: PostgresJudge) -> None:
    told: list[str] = []
    await hold_commits(pg)

    @transactional
    async def unit() -> None:
        await write(db, "kept")
        watch(told, "unit")

    async def release_when_cancelled(task: asyncio.Task[None]) -> None:
        while not task.cancelling():
            await asyncio.sleep(0)
        await release_commits(pg)

    task = asyncio.create_task(run(unit(), lambda: blocked(pg, "COMMIT")))
    releasing = asyncio.create_task(release_when_cancelled(task))
    await task
    await releasing
    assert told == committed("unit")
    assert await pg.texts() == ["kept"]
