"""An event loop that ends while units are at work: asyncio.run cancels every task that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.test_cancellation import blocked, hold_commits, release_commits
from txkit import Database, after_completion, transactional

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
async def test_commit_in_flight_is_finished(pg: PostgresJudge, run: Run) -> None:
    """Scenario: main returns, and a task that nobody awaits has its COMMIT at the server."""
    told: list[str] = []

    @transactional
    async def unit(db: Database) -> None:
        after_completion(told.append)
        await write(db, "kept")

    async def main() -> None:
        task = asyncio.create_task(unit(Database(pg.url)))
        await asyncio.wait({task}, timeout=0.01)
        while not in_commit.done():
            await asyncio.wait({task}, timeout=0.01)

    in_commit = asyncio.get_running_loop().create_future()
    await hold_commits(pg)
    program = asyncio.create_task(asyncio.to_thread(lambda: run(main())))
    await blocked(pg, "COMMIT")
    in_commit.set_result(None)
    done, _ = await asyncio.wait({program}, timeout=0.3)
    assert not done, "it did not wait"
    assert told == []
    await release_commits(pg)
    await program
    assert told == ["committed"]
    assert await pg.texts() == ["kept"]
