"""A SQLite connection that is being opened when its task is cancelled, or its loop ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.conftest import SqliteJudge
from tests.notes import write
from txkit import Database, transactional


class Opening:
    """Let the next connection wait in its thread until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import sqlite3

        self.begun, self.go_on = threading.Event(), threading.Event()
        self.made: list[sqlite3.Connection] = []
        connect = sqlite3.connect

        def slow(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            self.begun.set()
            assert self.go_on.wait(30)
            self.made.append(connect(*args, **kwargs))
            return self.made[-1]

        monkeypatch.setattr("aiosqlite.core.sqlite3.connect", slow)


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if "_connection_worker" in one.name]


@pytest.mark.parametrize("times", [1, 3])
def test_loop_that_ends_meanwhile_leaves_no_thread(
    sqlite_judge: SqliteJudge, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Scenario: the task is cancelled while its connection is opened, and the program ends."""
    opening = Opening(monkeypatch)

    async def main() -> None:
        async with Database(sqlite_judge.url) as db:
            task = asyncio.create_task(transactional(write)(db, "never"))
            await asyncio.to_thread(opening.begun.wait)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            opening.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]

    before = threads()
    asyncio.run(main())
    assert threads() == before
    [connection] = opening.made
    with pytest.raises(Exception, match="closed"):
        connection.execute("SELECT 1")
