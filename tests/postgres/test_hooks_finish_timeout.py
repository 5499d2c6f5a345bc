"""How long the hooks of a cancelled caller may take, and that nobody else's are hurried."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.notes import write
from tests.postgres.test_hooks_cancellation import Gate, single
from tests.postgres.test_hooks_cancelled_inside import exception, nothing
from tests.ways import End
from txkit import Database, after_commit, after_completion, after_rollback, transactional

__all__ = ["single"]  # the fixture


@pytest.mark.parametrize("end", [nothing, exception])
async def test_hook_that_never_ends_is_broken_off_after_the_finish_timeout(
    single: Database, end: End, caplog: pytest.LogCaptureFixture
) -> None:
    """Those behind it are not run, and the log says so."""
    told: list[str] = []
    single.finish_timeout_s = 0.2
    gate = Gate()

    async def run() -> None:
        async with transactional(name="pay"):
            await write(single, "a")
            after_completion(gate.hook)
            after_completion(told.append)
            await end(single)

    task = asyncio.create_task(run())
    await gate.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
    assert told == []
    [record] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "pay" in record.getMessage()
    assert "1 after it were not run" in record.getMessage()


async def test_bound_counts_for_who_was_cancelled_before_the_hooks_ran(
    single: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody cancels again while they run."""
    told: list[str] = []
    single.finish_timeout_s = 0.2
    reached = asyncio.Event()

    async def run() -> None:
        async with transactional(name="pay"):
            await write(single, "lost")
            after_completion(told.append)
            after_rollback(Gate().hook)
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
    assert told == ["rolled_back"]
    [record] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "0 after it were not run" in record.getMessage()


async def test_without_a_cancellation_a_hook_takes_its_time(single: Database) -> None:
    """The bound is for who was cancelled, not for slow hooks."""
    told: list[str] = []
    single.finish_timeout_s = 0.05

    async def slow() -> None:
        await asyncio.sleep(0.2)
        told.append("ended")

    async with transactional():
        await write(single, "a")
        after_commit(slow)
    assert told == ["ended"]
