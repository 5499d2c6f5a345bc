"""Pools that are full: who waits for a connection, and units nested as deep as you like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.conftest import PostgresJudge, opened
from tests.notes import write
from txkit import Database, new_context
from txkit._core.starvation import Lookout

AT_ONCE_S = 10
"""Far below the pool's timeout, and far above what a busy machine takes."""


@contextlib.asynccontextmanager
async def pool_of(judge: PostgresJudge, size: int, **options: Any) -> AsyncIterator[Database]:
    async for db in opened(
        judge, **{"pool_size": size, "max_overflow": 0, "name": "app", **options}
    ):
        yield db


def alone(error: BaseException) -> BaseException:
    """Give the one error that a group holds."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


async def out_of(db: Database) -> int:
    """Give how many connections are out of the pool."""
    pool: Any = (await db.engine()).pool
    return int(pool.checkedout())


async def lookout_of(db: Database) -> Lookout:
    """Give who looks out on the Database's pool; it is there once a unit has asked."""
    pool: Any = (await db.engine()).sync_engine.pool
    while not hasattr(pool, "txkit_lookout"):
        await asyncio.sleep(0)
    lookout: Lookout = pool.txkit_lookout
    return lookout


async def until_waiting(db: Database, number: int) -> None:
    """Wait until so many wait for a connection."""
    lookout = await lookout_of(db)
    while len(lookout.waiting) < number:
        await asyncio.sleep(0)


async def until_looked_again(db: Database, times: int = 2) -> None:
    """Wait until circles that were closed late have been looked for, so many times."""
    lookout: Any = await lookout_of(db)
    for _ in range(times):
        timer = lookout._timer
        while lookout._timer is timer:
            await asyncio.sleep(0)


async def nested(db: Database, depth: int) -> None:
    """Write on so many connections, each in a unit inside the one before."""
    await write(db, f"at {depth}")
    if depth > 1:
        await new_context(nested)(db, depth - 1)
