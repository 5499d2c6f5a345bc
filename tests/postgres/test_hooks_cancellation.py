"""A cancelled caller leaves nobody untold: the hooks run to their end, then it stays cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.conftest import PostgresJudge, opened
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked, hold_commits, release_commits
from tests.told import committed, rolled_back, watch
from tests.ways import (
    UNITS,
    Unit,
    each,
)
from txkit import (
    Database,
    after_commit,
    after_completion,
    after_rollback,
    transactional,
)


@pytest.fixture
async def single(pg: PostgresJudge) -> AsyncIterator[Database]:
    """One connection: lost, and the unit of a hook would wait for it in vain."""
    async for one in opened(pg, name="single", pool_size=1, max_overflow=0, pool_timeout=5):
        yield one


async def cancelled(
    task: asyncio.Task[object], times: int, release: Callable[[], Awaitable[object]]
) -> asyncio.CancelledError:
    """Cancel a task that waits, see that it goes on waiting, release it, and give what left."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    await release()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert task.cancelled()
    return caught.value


class Gate:
    """What a hook waits at; ``reached`` tells that it is there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._free = asyncio.Event()

    async def hook(self, *_: str) -> None:
        self.reached.set()
        await self._free.wait()

    async def release(self) -> None:
        self._free.set()


once_and_twice = pytest.mark.parametrize("times", [1, 2])


@once_and_twice
class TestCommitInFlight:
    @each(
        "unit", [unit for unit in UNITS if unit.__name__ not in {"by_session", "by_session_begin"}]
    )
    async def test_is_finished_and_its_hooks_run_with_units_of_their_own(
        self, single: Database, pg: PostgresJudge, unit: Unit, times: int
    ) -> None:
        told: list[str] = []
        await hold_commits(pg)

        async def hook() -> None:
            async with transactional():
                await write(single, "of the hook")

        async def run() -> None:
            async with unit(single):
                await write(single, "kept")
                watch(told, "unit")
                after_commit(hook)

        task = asyncio.create_task(run())
        await blocked(pg, "COMMIT")
        error = await cancelled(task, times, lambda: release_commits(pg))
        assert told == committed("unit")
        assert not hasattr(error, "__notes__")
        assert await pg.texts() == ["kept", "of the hook"]

    async def test_failures_of_its_hooks_are_on_the_cancellation(
        self, single: Database, pg: PostgresJudge, times: int
    ) -> None:
        told: list[str] = []
        await hold_commits(pg)

        def fails() -> None:
            raise KeyError("hook")

        async def run() -> None:
            async with transactional():
                await write(single, "kept")
                after_commit(fails)
                after_completion(told.append)

        task = asyncio.create_task(run())
        await blocked(pg, "COMMIT")
        error = await cancelled(task, times, lambda: release_commits(pg))
        assert any("KeyError: 'hook'" in line for line in error.__notes__)
        assert told == ["committed"]

    @each("unit", [unit for unit in UNITS if unit.__name__ in {"by_session", "by_session_begin"}])
    async def test_users_own_commit_never_tells_of_a_rollback_that_was_none(
        self, single: Database, pg: PostgresJudge, unit: Unit, times: int
    ) -> None:
        """The hooks know of a commit, or know that nobody knows; it may be broken off."""
        told: list[str] = []
        await hold_commits(pg)

        async def run() -> None:
            async with unit(single):
                await write(single, "perhaps")
                after_completion(told.append)

        task = asyncio.create_task(run())
        await blocked(pg, "COMMIT")
        task.cancel()
        for _ in range(times - 1):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        await release_commits(pg)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told in (["committed"], ["unknown"])
        if told == ["committed"]:
            assert await pg.texts() == ["perhaps"]


class TestInTheBody:
    @each("unit", UNITS)
    async def test_tells_of_a_rollback_and_stays_cancelled(
        self, single: Database, pg: PostgresJudge, unit: Unit
    ) -> None:
        told: list[str] = []
        reached = asyncio.Event()

        async def hook() -> None:
            async with transactional():
                await write(single, "of the hook")

        async def run() -> None:
            async with unit(single):
                await write(single, "lost")
                after_rollback(hook)
                watch(told, "unit")
                reached.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == rolled_back("unit")
        assert await pg.texts() == ["of the hook"]

    async def test_second_cancellation_waits_for_the_hook_too(self, single: Database) -> None:
        told: list[str] = []
        reached, gate = asyncio.Event(), Gate()

        async def run() -> None:
            async with transactional():
                await write(single, "lost")
                after_rollback(gate.hook)
                watch(told, "unit")
                reached.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await reached.wait()
        task.cancel()
        await gate.reached.wait()
        await cancelled(task, 1, gate.release)
        assert told == rolled_back("unit")

    async def test_sibling_that_a_group_cancels_has_told_before_the_group_is_left(
        self, db: Database, pg: PostgresJudge
    ) -> None:
        told: list[str] = []
        gate, fail = Gate(), asyncio.Event()

        async def sibling() -> None:
            async with transactional():
                await write(db, "kept")
                after_commit(gate.hook)
                watch(told, "sibling")

        async def fails() -> None:
            await fail.wait()
            raise Boom

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sibling())
                tasks.create_task(fails())

        task = asyncio.create_task(group())
        await gate.reached.wait()
        fail.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        await gate.release()
        with pytest.raises(ExceptionGroup):
            await task
        assert told == committed("sibling")
        assert await pg.texts() == ["kept"]


async def test_closed_coroutine_drops_its_hooks_with_a_warning(
    db: Database, pg: PostgresJudge, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be awaited any more; the connection is gone, and its transaction with it."""
    told: list[str] = []
    reached = asyncio.Event()

    @transactional(name="pay")
    async def unit() -> None:
        await write(db, "never")
        watch(told, "unit")
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(unit())
    await reached.wait()
    coroutine = task.get_coro()
    assert coroutine is not None
    with caplog.at_level(logging.WARNING, "txkit"):
        coroutine.close()
    assert told == []
    [message] = [record.getMessage() for record in caplog.records]
    assert "pay" in message
    assert "4 hooks were not run" in message
    task.cancel()
    with pytest.raises(RuntimeError, match="already awaited"):
        await task
    while await pg.backends():
        await asyncio.sleep(0)
    assert await pg.texts() == []
