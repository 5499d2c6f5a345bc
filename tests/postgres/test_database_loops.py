"""One engine per event loop, and its end with the loop."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.test_database import pid, until_gone
from txkit import Database, new_context, transactional

NewLoop = Callable[[], asyncio.AbstractEventLoop]


def loops() -> list[NewLoop]:
    found: list[NewLoop] = [asyncio.new_event_loop]
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        found.append(uvloop.new_event_loop)
    return found


def named(new_loop: NewLoop) -> str:
    return new_loop.__module__.partition(".")[0]


every_loop = pytest.mark.parametrize("new_loop", loops(), ids=named)


async def in_thread(function: Callable[[], Any]) -> Any:
    """Run a function in a thread that this test's context does not follow into."""
    return await asyncio.get_running_loop().run_in_executor(None, function)


def run(main: Any, new_loop: NewLoop) -> Any:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


@every_loop
async def test_loops_one_after_the_other(pg: PostgresJudge, new_loop: NewLoop) -> None:
    """Scenario: several asyncio.run in a row, and nobody ever closes the Database.

    Outcome: each has a backend of its own, gone at its end; no warning is left for the collector.
    """
    db = Database(pg.url)
    found: list[int] = []

    async def main() -> None:
        await transactional(write)(db, "a")
        found.append(await transactional(pid)(db))

    for count in range(1, 4):
        await in_thread(lambda: run(main(), new_loop))
        assert await pg.texts() == ["a"] * count
        await until_gone(pg, *found)
    gc.collect()
    assert len(set(found)) == 3


@every_loop
async def test_database_that_ends_with_its_loop(pg: PostgresJudge, new_loop: NewLoop) -> None:
    """Scenario: the Database is a local of main(), so that both are gone at the same moment."""
    found: list[int] = []

    async def main() -> None:
        db = Database(pg.url)
        async with (await db.engine()).connect() as connection:
            query = text("SELECT pg_backend_pid()")
            found.append((await connection.execute(query)).scalar_one())

    await in_thread(lambda: run(main(), new_loop))
    await until_gone(pg, *found)
    gc.collect()


@every_loop
async def test_loops_at_once_in_threads(pg: PostgresJudge, new_loop: NewLoop) -> None:
    db = Database(pg.url, pool_size=2)
    together = threading.Barrier(5)

    async def main() -> set[int]:
        mine = {await transactional(pid)(db)}
        together.wait()
        for _ in range(5):
            mine |= set(await asyncio.gather(new_context(pid)(db), new_context(pid)(db)))
        return mine

    parts = await asyncio.gather(*(in_thread(lambda: run(main(), new_loop)) for _ in range(5)))
    assert all(1 <= len(part) <= 2 for part in parts)
    assert len(set.union(*parts)) == sum(map(len, parts)), "a backend was shared"
    await until_gone(pg)
    gc.collect()


@every_loop
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_loop_closed_without_shutdown_is_forgotten(
    pg: PostgresJudge, new_loop: NewLoop
) -> None:
    """Scenario: a loop is closed with connections in the pool, which somebody else holds too.

    Outcome: its backends are gone after the next use, in another loop; asyncio's own warnings about
    the transports that were left to it are true.
    """
    db = Database(pg.url)
    left: list[int] = []

    held: list[Any] = []  # so that no garbage collection hangs up instead

    async def use() -> None:
        left.extend(await asyncio.gather(new_context(pid)(db), new_context(pid)(db)))
        async with (await db.engine()).connect() as connection:
            held.append((await connection.get_raw_connection()).driver_connection)

    def run_badly() -> None:
        loop = new_loop()
        loop.run_until_complete(use())
        loop.close()

    await in_thread(run_badly)
    assert len(set(left)) == 2
    await transactional(write)(db, "next")
    await until_gone(pg, *left)
    await db.close()
    held.clear()
    gc.collect()
    assert await pg.texts() == ["next"]


async def test_another_loop_follows_a_switch_at_its_next_transaction(pg: PostgresJudge) -> None:
    db = Database(pg.url, connect_args={"ssl": False})
    port = pg.url.partition("@")[2].partition("/")[0].partition(":")[2]
    before = threading.Barrier(2)
    after = threading.Barrier(2)

    async def other() -> tuple[int, int]:
        first = await transactional(pid)(db)
        before.wait()
        after.wait()
        return first, await transactional(pid)(db)

    running = in_thread(lambda: run(other(), asyncio.new_event_loop))
    task = asyncio.ensure_future(running)
    await in_thread(before.wait)
    await db.switch_host(f"localhost:{port}")
    assert db.host == f"localhost:{port}"
    await in_thread(after.wait)
    first, second = await task
    assert first != second
    await db.close()
    await until_gone(pg, first, second)


async def test_switches_in_many_threads_leave_one_host_for_all(pg: PostgresJudge) -> None:
    db = Database(pg.url, connect_args={"ssl": False})
    port = pg.url.partition("@")[2].partition("/")[0].partition(":")[2]
    hosts = [f"localhost:{port}", f"127.0.0.1:{port}"]
    together = threading.Barrier(4)

    async def main(number: int) -> None:
        together.wait()
        for turn in range(5):
            await db.switch_host(hosts[(turn + number) % 2])
            await transactional(write)(db, "a")
        together.wait()
        host = (await db.engine()).url.host
        together.wait()
        assert db.host == f"{host}:{port}"

    await asyncio.gather(
        *(in_thread(lambda n=n: run(main(n), asyncio.new_event_loop)) for n in range(4))
    )
    assert len(await pg.texts()) == 20
    await until_gone(pg)


async def test_cancelled_main_leaves_no_backend(pg: PostgresJudge) -> None:
    """Scenario: asyncio.run ends with units in the middle of a transaction."""
    db = Database(pg.url)
    found: list[int] = []

    @new_context
    async def unit(inside: asyncio.Event) -> None:
        await write(db, "lost")
        found.append(await pid(db))
        inside.set()
        await asyncio.Event().wait()

    async def main() -> None:
        events = [asyncio.Event() for _ in range(3)]
        tasks = [asyncio.create_task(unit(event)) for event in events]
        for event in events:
            await event.wait()
        assert not any(task.done() for task in tasks)

    await in_thread(lambda: run(main(), asyncio.new_event_loop))
    assert len(found) == 3
    await until_gone(pg, *found)
    gc.collect()
    assert await pg.texts() == []
