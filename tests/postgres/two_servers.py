"""A second PostgreSQL, for the tests of ``switch_host``; its fixtures are named there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from tests import server as postgres
from tests.conftest import PostgresJudge
from txkit import Database


@pytest.fixture(scope="module")
def other_server() -> Iterator[postgres.Server]:
    running = postgres.start()
    yield running
    running.stop()


@pytest.fixture
async def there(pg: PostgresJudge, other_server: postgres.Server) -> AsyncIterator[PostgresJudge]:
    """A database of the same name on another server."""
    url = await twin(other_server, pg)
    connection = await asyncpg.connect(url)
    yield PostgresJudge(connection, url)
    await connection.close()


async def twin(server: postgres.Server, judge: PostgresJudge) -> str:
    """Create a database like the judge's on another server, and give its URL."""
    name = judge.url.rpartition("/")[2]
    admin = await asyncpg.connect(server.admin_url)
    await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY file_copy')
    await admin.close()
    connection = await asyncpg.connect(server.url(name))
    await connection.execute("CREATE TABLE note (id SERIAL PRIMARY KEY, text TEXT NOT NULL)")
    await connection.close()
    return server.url(name)


def host_of(judge: PostgresJudge) -> str:
    return judge.url.partition("@")[2].partition("/")[0]


def new(judge: PostgresJudge, **options: Any) -> Database:
    return Database(judge.url, connect_args={"ssl": False}, **options)
