"""What the tests of other processes wait for: where their unit is, and their end."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable

from tests.conftest import PostgresJudge
from tests.postgres.test_cancellation import asleep, blocked

_AT_MOST_S = 30


async def between(pg: PostgresJudge) -> None:
    """Wait until a backend is seen between two statements."""
    idle = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'idle in transaction' AND query LIKE 'INSERT%'"
    )
    while not await pg.fetch(idle):
        await asyncio.sleep(0)


async def in_statement(pg: PostgresJudge) -> None:
    await asleep(pg)


async def in_commit(pg: PostgresJudge) -> None:
    await blocked(pg, "COMMIT")


MOMENTS: dict[str, Callable[[PostgresJudge], Awaitable[None]]] = {
    "between": between,
    "statement": in_statement,
    "commit": in_commit,
}


async def gone(pg: PostgresJudge) -> None:
    """Wait until the server has seen that its client is gone."""
    async with asyncio.timeout(_AT_MOST_S):
        while await pg.backends():
            await asyncio.sleep(0)


async def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait until a process ends by itself; give what it has said since."""
    async with asyncio.timeout(_AT_MOST_S):
        return await asyncio.to_thread(process.communicate)


async def line(process: subprocess.Popen[str]) -> str:
    """Wait for the next line of a process."""
    assert process.stdout is not None
    async with asyncio.timeout(_AT_MOST_S):
        return (await asyncio.to_thread(process.stdout.readline)).rstrip()
