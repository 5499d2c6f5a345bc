"""The edge, as most of its tests want it (some make one of their own), and a row that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import PostgresJudge
from tests.postgres.edges import Edge, edge_of
from tests.postgres.watching import until_idle
from tests.server import Server


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server):
        yield one


@pytest.fixture
async def row(pg: PostgresJudge) -> AsyncIterator[None]:
    """One note, of which all these tests are about; afterwards nobody is at work or holds a lock."""
    await pg.fetch("INSERT INTO note VALUES (1000, 'first')")
    yield
    await until_idle(pg)
    assert not await pg.fetch("SELECT FROM pg_locks WHERE relation = 'note'::regclass")
    left = {task for task in asyncio.all_tasks() if "txkit" in task.get_name()}
    if left:  # what was asked beside the pool has its answer, and hangs up
        _, left = await asyncio.wait(left, timeout=5)
    assert not left
