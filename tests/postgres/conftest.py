"""The edge, as most of its tests want it; some make one of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.postgres.edges import Edge, edge_of
from tests.server import Server


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server):
        yield one
