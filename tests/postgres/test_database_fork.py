"""After a fork the child has an engine of its own, and the parent's sockets stay the parent's."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.test_database import pid, until_gone
from txkit import Database, transactional
from txkit._core.place import current

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here, so nothing to promise"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def in_child(main: Callable[[], Coroutine[Any, Any, object]]) -> str:
    """Fork, run ``main`` in the child, and give what it answered."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        answer = "died"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                answer = repr(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - told to the parent
            answer = repr(error)
        finally:
            os.write(into, answer.encode())
            os._exit(0)
    os.close(into)
    with os.fdopen(out) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return answer


async def test_child_gets_its_own_backend_and_the_parents_goes_on(pg: PostgresJudge) -> None:
    """Scenario: forked in a coroutine, with a connection in the pool."""
    async with Database(pg.url) as db:
        before = await transactional(pid)(db)

        async def main() -> int:
            await transactional(write)(db, "child")
            return await transactional(pid)(db)

        childs = int(in_child(main))
        assert childs != before
        assert await transactional(pid)(db) == before
        await transactional(write)(db, "parent")
        await until_gone(pg, childs)
    assert await pg.texts() == ["child", "parent"]


async def test_fork_inside_a_transaction(pg: PostgresJudge) -> None:
    """Scenario: forked while the parent's transaction is open.

    Outcome: the child is in no context, and its unit is its own; the parent's commits.
    """
    async with Database(pg.url) as db:

        @transactional
        async def unit() -> None:
            await write(db, "parent")
            mine = await pid(db)

            async def main() -> int:
                assert current() is None
                await transactional(write)(db, "child")
                return await transactional(pid)(db)

            assert int(in_child(main)) != mine
            assert await pg.texts() == ["child"]
            assert await pid(db) == mine

        await unit()
    assert sorted(await pg.texts()) == ["child", "parent"]


async def test_fork_while_another_thread_is_at_it(pg: PostgresJudge) -> None:
    """Scenario: another thread is just about to start or end a loop's engine, which takes a lock.

    Outcome: the child doesn't wait for a thread that it doesn't have.
    """
    db = Database(pg.url)
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with db._engines._lock:
            holding.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()

    async def main() -> int:
        return await asyncio.wait_for(transactional(pid)(db), 10)

    answer = in_child(main)
    let_go.set()
    thread.join()
    assert answer.isdigit()


async def test_multiprocessing_fork(pg: PostgresJudge) -> None:
    async with Database(pg.url) as db:
        before = await transactional(pid)(db)
        processes = [
            multiprocessing.get_context("fork").Process(target=work, args=(db, str(number)))
            for number in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            await asyncio.get_running_loop().run_in_executor(None, process.join)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert sorted(await pg.texts()) == ["0", "1", "2"]
        assert await transactional(pid)(db) == before


def work(db: Database, text: str) -> None:
    asyncio.run(transactional(write)(db, text))


async def test_engine_factory_is_called_again_in_the_child(pg: PostgresJudge) -> None:
    url = pg.url.replace("postgresql:", "postgresql+asyncpg:")
    shared = create_async_engine(url)
    async with Database(engine_factory=lambda _: shared) as db:
        before = await transactional(pid)(db)

        async def main() -> int:
            return await transactional(pid)(db)

        assert "same engine again" in in_child(main)
        assert await transactional(pid)(db) == before
