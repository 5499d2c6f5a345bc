"""A Database on SQLite: in memory, in many loops, in many processes."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.conftest import SqliteJudge
from tests.notes import Boom, count, metadata, write
from txkit import Database, PoolStarvationError, db_session, new_context, transactional

ROOT = Path(__file__).parents[2]
MEMORY = ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?cache=shared&uri=true"]


def drivers() -> list[threading.Thread]:
    """The threads that aiosqlite's connections run in."""
    return [one for one in threading.enumerate() if "_connection_worker_thread" in one.name]


async def make_table(db: Database) -> None:
    async with (await db.engine()).begin() as connection:
        await connection.run_sync(metadata.create_all)


async def test_nothing_is_opened_before_the_first_statement(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with Database(f"sqlite:///{path}") as db:

        @transactional
        async def unit() -> None:
            session = await db_session(db)
            assert not path.exists()
            await session.execute(text("SELECT 1"))
            assert path.exists()

        await unit()


@pytest.mark.parametrize("url", MEMORY)
async def test_units_in_memory_queue_for_one_connection(url: str) -> None:
    """Scenario: units write in turns, yielding between; every other one fails.

    Outcome: no unit sees another's uncommitted rows, and exactly the failed ones' are gone.
    """
    async with Database(url) as db:
        await make_table(db)
        inside: set[int] = set()

        @new_context
        async def unit(number: int) -> None:
            await write(db, str(number))
            inside.add(number)
            assert inside == {number}
            for _ in range(5):
                await asyncio.sleep(0)
            await write(db, str(number))
            assert await count(db) % 2 == 0
            inside.remove(number)
            if number % 2:
                raise Boom

        done = await asyncio.gather(*(unit(n) for n in range(20)), return_exceptions=True)
        assert [type(one) for one in done] == [type(None), Boom] * 10
        assert await transactional(count)(db) == 20


async def test_unit_in_memory_inside_another_is_refused_at_once() -> None:
    async with Database("sqlite://") as db:
        await make_table(db)

        @transactional
        async def outer() -> None:
            await write(db, "outer")
            with pytest.raises(PoolStarvationError):
                async with asyncio.timeout(2):
                    await new_context(write)(db, "inner")

        await outer()
        assert await transactional(count)(db) == 1


async def test_memory_of_an_engine_factory_with_one_connection() -> None:
    def factory(_: object) -> object:
        return create_async_engine(
            "sqlite+aiosqlite://", poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0
        )

    async with Database(engine_factory=factory) as db:  # type: ignore[arg-type]
        await make_table(db)
        await asyncio.gather(*(new_context(write)(db, "a") for _ in range(8)))
        assert await transactional(count)(db) == 8


@pytest.mark.parametrize("kept", [True, False])
async def test_threads_end_with_their_loops(sqlite_judge: SqliteJudge, kept: bool) -> None:
    """Scenario: several asyncio.run in a row, and nobody closes the Database, which lives on or
    ends with its loop."""
    keep: list[Database] = [Database(sqlite_judge.url)]
    before = set(drivers())

    async def main() -> None:
        db = keep[0] if kept else Database(sqlite_judge.url)
        async with (await db.engine()).begin() as connection:
            await connection.execute(text("INSERT INTO note (text) VALUES ('a')"))

    def runs() -> None:
        for _ in range(3):
            asyncio.run(main())

    await asyncio.get_running_loop().run_in_executor(None, runs)
    gc.collect()
    for thread in set(drivers()) - before:
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert await sqlite_judge.texts() == ["a"] * 3


async def test_thread_of_a_loop_closed_without_shutdown_ends_at_the_next_use(
    sqlite_judge: SqliteJudge,
) -> None:
    db = Database(sqlite_judge.url)
    left: list[threading.Thread] = []

    def run_badly() -> None:
        before = set(drivers())
        loop = asyncio.new_event_loop()
        loop.run_until_complete(transactional(write)(db, "a"))
        loop.close()
        left.extend(set(drivers()) - before)

    await asyncio.get_running_loop().run_in_executor(None, run_badly)
    assert [thread.is_alive() for thread in left] == [True]
    await transactional(write)(db, "b")
    await asyncio.get_running_loop().run_in_executor(None, left[0].join)
    await db.close()
    gc.collect()
    assert await sqlite_judge.texts() == ["a", "b"]


async def test_loops_in_threads_share_one_file(sqlite_judge: SqliteJudge) -> None:
    db = Database(sqlite_judge.url)

    async def main() -> None:
        for _ in range(5):
            await transactional(write)(db, "a")

    await asyncio.gather(
        *(
            asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(main()))
            for _ in range(4)
        )
    )
    gc.collect()
    assert await sqlite_judge.texts() == ["a"] * 20


async def test_processes_that_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Scenario: three processes wait at a pipe, and are let go together."""
    program = """
import asyncio, sys
from tests.notes import metadata, write
from txkit import Database, transactional
async def main():
    db = Database("sqlite:///" + sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    async with (await db.engine()).begin() as connection:
        await connection.run_sync(metadata.create_all)
    for _ in range(5):
        await transactional(write)(db, "a")
asyncio.run(main())
"""
    path = tmp_path / "new.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, failed = process.communicate(timeout=60)
        assert (process.returncode, failed) == (0, "")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM note").fetchone() == (15,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
