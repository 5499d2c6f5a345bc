"""Cancelled while a hook runs: it ends, those behind it run, and the caller stays cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.test_hooks_cancellation import Gate, cancelled, once_and_twice, single
from tests.told import committed, rolled_back, watch
from tests.ways import ROLLBACKS, UNITS, End, Unit, block_alone, boundary, each
from txkit import (
    Database,
    after_commit,
    after_completion,
    after_rollback,
    before_commit,
    set_rollback_only,
    transactional,
)

__all__ = ["single"]  # the fixture


async def exception(_: Database) -> None:
    raise Boom


async def request(_: Database) -> None:
    set_rollback_only()


async def nothing(_: Database) -> None: ...


class TestInAHook:
    @once_and_twice
    async def test_call_that_would_have_returned_is_cancelled_all_the_same(
        self, single: Database, pg: PostgresJudge, times: int
    ) -> None:
        gate = Gate()
        told: list[str] = []

        @transactional
        async def unit() -> str:
            await write(single, "kept")
            after_commit(gate.hook)
            after_commit(lambda: told.append("behind"))
            return "result"

        task = asyncio.create_task(unit())
        await gate.reached.wait()
        await cancelled(task, times, gate.release)
        assert told == ["behind"]
        assert await pg.texts() == ["kept"]

    @each("unit", UNITS)
    @pytest.mark.parametrize("register", [after_commit, after_completion])
    async def test_after_a_commit_it_ends_and_those_behind_it_run(
        self, single: Database, pg: PostgresJudge, unit: Unit, register: Callable
    ) -> None:
        told: list[str] = []
        gate = Gate()

        async def behind() -> None:
            async with transactional():
                await write(single, "of the hook")

        async def run() -> None:
            async with unit(single):
                await write(single, "kept")
                register(gate.hook)
                after_commit(behind)
                watch(told, "unit")

        task = asyncio.create_task(run())
        await gate.reached.wait()
        assert await pg.texts() == ["kept"]
        await cancelled(task, 2, gate.release)
        assert told == committed("unit")
        assert await pg.texts() == ["kept", "of the hook"]

    @each("unit", [boundary, block_alone])
    @pytest.mark.parametrize("end", [exception, request])
    @pytest.mark.parametrize("register", [after_rollback, after_completion])
    async def test_after_a_rollback_it_ends_and_those_behind_it_run(
        self,
        single: Database,
        pg: PostgresJudge,
        unit: Unit,
        end: End,
        register: Callable,
    ) -> None:
        told: list[str] = []
        gate = Gate()

        async def run() -> None:
            async with unit(single):
                await write(single, "lost")
                register(gate.hook)
                watch(told, "unit")
                await end(single)

        task = asyncio.create_task(run())
        await gate.reached.wait()
        await cancelled(task, 2, gate.release)
        assert told == rolled_back("unit")
        assert await pg.texts() == []

    @each("rollback", ROLLBACKS)
    async def test_after_a_rollback_by_hand_it_ends_and_the_unit_is_cancelled(
        self, single: Database, pg: PostgresJudge, rollback: End
    ) -> None:
        told: list[str] = []
        gate = Gate()

        async def run() -> None:
            async with transactional():
                await write(single, "lost")
                after_rollback(gate.hook)
                watch(told, "first")
                await rollback(single)
                raise AssertionError

        task = asyncio.create_task(run())
        await gate.reached.wait()
        await cancelled(task, 2, gate.release)
        assert told == rolled_back("first")

    @once_and_twice
    @pytest.mark.parametrize("end", [nothing, exception])
    async def test_failures_behind_it_are_on_the_cancellation(
        self, single: Database, end: End, times: int
    ) -> None:
        gate = Gate()

        def fails(_: str) -> None:
            raise KeyError("hook")

        async def run() -> None:
            async with transactional():
                await write(single, "a")
                after_completion(gate.hook)
                after_completion(fails)
                await end(single)

        task = asyncio.create_task(run())
        await gate.reached.wait()
        error = await cancelled(task, times, gate.release)
        assert "KeyError: 'hook'" in "".join(getattr(error, "__notes__", []))

    @once_and_twice
    async def test_before_a_commit_it_is_cancelled_and_the_unit_rolls_back(
        self, single: Database, pg: PostgresJudge, times: int
    ) -> None:
        told: list[str] = []
        gate = Gate()

        async def run() -> None:
            async with transactional():
                await write(single, "lost")
                before_commit(gate.hook)
                watch(told, "unit")

        task = asyncio.create_task(run())
        await gate.reached.wait()
        for _ in range(times):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == rolled_back("unit")
        assert await pg.texts() == []


class TestScopes:
    async def test_anyio_scope_lets_the_hook_end(self, single: Database, pg: PostgresJudge) -> None:
        """Its cancellation comes again at every await of the caller's."""
        told: list[str] = []
        gate = Gate()

        async def release(scope: anyio.CancelScope) -> None:
            await gate.reached.wait()
            scope.cancel()
            await anyio.sleep(0)
            await gate.release()

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(release, scope)
                async with transactional():
                    await write(single, "kept")
                    after_commit(gate.hook)
                    watch(told, "unit")
                await anyio.sleep(0)
                raise AssertionError
        assert scope.cancelled_caught
        assert told == committed("unit")
        assert await pg.texts() == ["kept"]

    async def test_timeout_that_passes_in_a_hook_lets_it_end(
        self, single: Database, pg: PostgresJudge
    ) -> None:
        told: list[str] = []
        gate = Gate()
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as timeout:
                async with transactional():
                    await write(single, "kept")

                    async def hook() -> None:
                        timeout.reschedule(loop.time())
                        loop.call_later(0.05, gate._free.set)
                        await gate.hook()

                    after_commit(hook)
                    watch(told, "unit")
        assert told == committed("unit")
        assert await pg.texts() == ["kept"]
