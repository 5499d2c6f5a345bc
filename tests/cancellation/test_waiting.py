"""Cancelled while it waits for a connection: in the very turns in which it is given one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from sqlalchemy import event

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.watching import pool_of_one, until_idle
from txkit import Database, set_rollback_only, transactional

Cancelled = Callable[[asyncio.Future[Callable[[], object]], Awaitable[None]], Awaitable[None]]


async def by_task(cancel: asyncio.Future[Callable[[], object]], work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    cancel.set_result(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task


async def by_scope(cancel: asyncio.Future[Callable[[], object]], work: Awaitable[None]) -> None:
    with anyio.CancelScope() as scope:
        cancel.set_result(scope.cancel)
        await work
    assert scope.cancelled_caught


@pytest.mark.parametrize("cancelled", [by_task, by_scope])
@pytest.mark.parametrize("turns", range(9))
async def test_given_back_and_cancelled_a_few_turns_later_loses_no_connection(
    pg: PostgresJudge, turns: int, cancelled: Cancelled
) -> None:
    """Scenario: the pool's one connection comes back, and its waiter is cancelled meanwhile.
    Outcome: the cancellation leaves, nothing is committed, and the next unit has a connection."""
    async with pool_of_one(pg, pool_timeout=5) as db:
        cancel: asyncio.Future[Callable[[], object]] = asyncio.get_running_loop().create_future()
        await hold_until(db, cancel, turns, cancelled(cancel, waiter(db)))
        async with asyncio.timeout(5):
            await transactional(write)(db, "next")
        await until_idle(pg)
        assert len(await pg.backends()) == 1
    assert await pg.texts() == ["next"]


@transactional
async def waiter(db: Database) -> None:
    await write(db, "never")
    await asyncio.Event().wait()


async def hold_until(
    db: Database,
    cancel: asyncio.Future[Callable[[], object]],
    turns: int,
    waiting: Awaitable[None],
) -> None:
    """Give a connection back while somebody waits for it, and cancel him so many turns later."""
    loop = asyncio.get_running_loop()
    taken = asyncio.Event()

    @transactional
    async def holder() -> None:
        await write(db, "never")
        taken.set()
        await cancel  # set in the turn in which the waiter begins
        await asyncio.sleep(0)
        set_rollback_only()

    def after(left: int) -> None:
        if left:
            loop.call_soon(after, left - 1)
        else:
            cancel.result()()

    holding = asyncio.create_task(holder())
    await taken.wait()
    engine = (await db.engine()).sync_engine
    event.listen(engine, "checkin", lambda *_: after(turns), once=True)
    await waiting
    await holding
