"""Fixtures: a real server, a database per test, and a judge that sees only what is committed.

After every test nothing is checked out of a pool, no transaction is idle, and
no context is left: whoever leaks fails, not the test after it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

os.environ["TXKIT_DEVELOPMENT"] = "1"  # before txkit is imported; see tests/frameworks

from tests import server as postgres
from tests.frameworks import is_of_the_others
from txkit import Database
from txkit._core.place import current

_NUMBERS = itertools.count(1)
_SCHEMA = "CREATE TABLE note (id {key}, text VARCHAR(200) NOT NULL)"


_LONGEST = ("tests/soak/", "::test_programs_do_what_the_model_foresees")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--frameworks",
        action="store_true",
        help="test the less used frameworks too (they are in the extra of that name)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the pages of frameworks that are not there, and let the longest tests begin first.

    At the end one of them would have the machine for itself.
    """
    if not config.getoption("frameworks"):
        items[:] = [item for item in items if not _runs_a_page_of_the_others(item.name)]
    items.sort(key=lambda item: not any(part in item.nodeid for part in _LONGEST))


def _runs_a_page_of_the_others(test: str) -> bool:
    found = re.fullmatch(r"test_programs_of_page.*\[docs/frameworks/(\w+)\.md\]", test)
    return found is not None and is_of_the_others(found[1])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    running = postgres.start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def no_context_left() -> Iterator[None]:
    yield
    assert current() is None


class PostgresJudge:
    """A second connection: what it reads is committed."""

    def __init__(self, connection: asyncpg.Connection[Any], url: str) -> None:
        self.connection = connection
        self.url = url

    async def texts(self, table: str = "note") -> list[str]:
        rows = await self.connection.fetch(f"SELECT text FROM {table} ORDER BY id")
        return [row["text"] for row in rows]

    async def fetch(self, query: str, *args: object) -> list[Any]:
        return await self.connection.fetch(query, *args)

    async def backends(self) -> list[tuple[int, str]]:
        """The other connections to this database: (pid, state)."""
        rows = await self.connection.fetch(
            "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY pid"
        )
        return [(row["pid"], row["state"]) for row in rows]


class SqliteJudge:
    """The same for a SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    async def texts(self, table: str = "note") -> list[str]:
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute(f"SELECT text FROM {table} ORDER BY id")]
        finally:
            connection.close()


async def new_postgres(server: postgres.Server) -> AsyncIterator[PostgresJudge]:
    """Create a database with the table ``note``, and drop it in the end."""
    name = f"txkit_{next(_NUMBERS)}_{id(object()):x}"
    admin = await asyncpg.connect(server.admin_url)
    try:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY file_copy')
        connection = await asyncpg.connect(server.url(name))
        try:
            await connection.execute(_SCHEMA.format(key="SERIAL PRIMARY KEY"))
            judge = PostgresJudge(connection, server.url(name))
            yield judge
            await nobody_is_idle_in_a_transaction(judge)
        finally:
            await connection.close()
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


async def nobody_is_idle_in_a_transaction(judge: PostgresJudge) -> None:
    """Whoever leaks stays; a backend whose connection was cut is seen to be gone a moment later."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while idle := [one for one in await judge.backends() if "transaction" in one[1]]:
        assert loop.time() - start < 5, f"idle in transaction: {idle}"


@pytest.fixture
async def pg(server: postgres.Server) -> AsyncIterator[PostgresJudge]:
    """A PostgreSQL database of its own."""
    async for judge in new_postgres(server):
        yield judge


@pytest.fixture
async def pg2(server: postgres.Server) -> AsyncIterator[PostgresJudge]:
    """A second one, for tests with several Databases."""
    async for judge in new_postgres(server):
        yield judge


@pytest.fixture
def sqlite_judge(tmp_path: Path) -> SqliteJudge:
    judge = SqliteJudge(tmp_path / "test.db")
    connection = sqlite3.connect(judge.path)
    connection.execute(_SCHEMA.format(key="INTEGER PRIMARY KEY"))
    connection.commit()
    connection.close()
    return judge


async def opened(judge: PostgresJudge | SqliteJudge, **options: Any) -> AsyncIterator[Database]:
    """A Database for the judge's, checked for leaks at its end.

    Without TLS: asyncpg, cancelled while it asks a server for TLS, leaves a future's
    exception unread, which pytest rightly makes a failure.
    """
    if isinstance(judge, PostgresJudge):
        options.setdefault("connect_args", {"ssl": False})
    db = Database(judge.url, **options)
    yield db
    pool = (await db.engine()).pool
    out = pool.checkedout()  # type: ignore[attr-defined]
    await db.close()
    assert out == 0, f"{out} connections are still checked out"


@pytest.fixture
async def db(pg: PostgresJudge) -> AsyncIterator[Database]:
    """A Database on PostgreSQL; ``pg`` is its judge."""
    async for one in opened(pg, name="first", pool_size=5, max_overflow=0):
        yield one


@pytest.fixture
async def db2(pg2: PostgresJudge) -> AsyncIterator[Database]:
    """Another one; ``pg2`` is its judge."""
    async for one in opened(pg2, name="second", pool_size=5, max_overflow=0):
        yield one


@pytest.fixture
async def lite(sqlite_judge: SqliteJudge) -> AsyncIterator[Database]:
    """A Database on SQLite; ``sqlite_judge`` is its judge."""
    async for one in opened(sqlite_judge, name="lite"):
        yield one


class Place:
    """A Database and its judge, on either backend."""

    def __init__(self, db: Database, judge: PostgresJudge | SqliteJudge) -> None:
        self.db = db
        self.judge = judge

    async def texts(self) -> list[str]:
        return await self.judge.texts()


@pytest.fixture(params=["postgres", "sqlite"])
async def place(request: pytest.FixtureRequest, server: postgres.Server) -> AsyncIterator[Place]:
    """PostgreSQL, then SQLite: for what must be alike on both."""
    if request.param == "postgres":
        async for judge in new_postgres(server):
            async for one in opened(judge, name="app", pool_size=5, max_overflow=0):
                yield Place(one, judge)
    else:
        sqlite_file = request.getfixturevalue("sqlite_judge")
        async for one in opened(sqlite_file, name="app"):
            yield Place(one, sqlite_file)
