"""What the tests of one PostgreSQL look at from outside: a pool of one, locks, backends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from tests.boundary.mistakes import driver
from tests.conftest import PostgresJudge, opened
from txkit import Database, db_session

_BYSTANDER = "bystander"
_AT_MOST_S = 10


@contextlib.asynccontextmanager
async def pool_of_one(judge: PostgresJudge, **options: Any) -> AsyncIterator[Database]:
    """Open a Database whose next unit gets the very connection that the last one had."""
    async for db in opened(judge, **{"pool_size": 1, "max_overflow": 0, **options}):
        yield db


@contextlib.asynccontextmanager
async def bystander(pg: PostgresJudge) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Open another connection in a transaction, which ``until_idle`` does not look at."""
    settings = {"application_name": _BYSTANDER}
    connection = await asyncpg.connect(pg.url, server_settings=settings)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def locked_row(pg: PostgresJudge) -> AsyncIterator[int]:
    """Let another connection hold a lock on a row, and give the row's id."""
    await pg.fetch("INSERT INTO note VALUES (1000, 'locked')")
    async with bystander(pg) as connection:
        await connection.execute("SELECT FROM note WHERE id = 1000 FOR UPDATE")
        yield 1000


async def until_idle(pg: PostgresJudge) -> float:
    """Wait until no other backend works or holds a transaction open; give the seconds it took."""
    busy = (
        "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
        " AND pid <> pg_backend_pid() AND application_name <> $1"
    )
    loop = asyncio.get_running_loop()
    start = loop.time()
    while found := await pg.fetch(busy, _BYSTANDER):
        assert loop.time() - start < _AT_MOST_S, f"still there: {found}"
    return loop.time() - start


async def backend_pid(db: Database) -> int:
    session = await db_session(db)
    pid: int = (
        await (await session.connection()).exec_driver_sql("SELECT pg_backend_pid()")
    ).scalar_one()
    return pid


async def kill_seen(db: Database, judge: PostgresJudge) -> None:
    """End the process of the context's session, and wait until the driver knows."""
    raw = await driver(await db_session(db))
    await judge.fetch("SELECT pg_terminate_backend($1, 5000)", raw.get_server_pid())
    while not raw.is_closed():
        await judge.fetch("SELECT 1")
