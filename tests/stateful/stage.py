"""Where the programs run: two Databases, and judges that see only what is committed.

One event loop and one pair of Databases serve all examples of a test: a row's
number tells whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol, Self

import asyncpg

from tests import server as postgres
from txkit import Database

_TABLES = (
    "CREATE TABLE item (n INTEGER PRIMARY KEY, m INTEGER NOT NULL)",
    "CREATE TABLE debt (n INTEGER REFERENCES item (n) DEFERRABLE INITIALLY DEFERRED)",
)
_ROWS = "SELECT n FROM item WHERE n >= {} ORDER BY n"
_PER_EXAMPLE = 10_000


class Judge(Protocol):
    """A second connection."""

    async def rows(self, start: int) -> list[int]: ...


class PostgresJudge:
    def __init__(self, statement: Any) -> None:
        self._statement = statement

    async def rows(self, start: int) -> list[int]:
        return [record[0] for record in await self._statement.fetch(start)]


class SqliteJudge:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def rows(self, start: int) -> list[int]:
        return [row[0] for row in self._connection.execute(_ROWS.format("?"), (start,))]


class Stage:
    """Two Databases of one backend, their judges, and the numbers of the present example."""

    def __init__(self, backend: str, databases: list[Database], judges: list[Judge]) -> None:
        self.backend = backend
        self.databases = databases
        self.judges = judges
        self.start = 0

    def next_example(self) -> None:
        """Let rows of earlier examples be forgotten."""
        self.start += _PER_EXAMPLE

    async def rows(self) -> tuple[list[int], ...]:
        """The committed rows of the example in both Databases, by the step that wrote them."""
        rows = [await judge.rows(self.start) for judge in self.judges]
        return tuple([number - self.start for number in numbers] for numbers in rows)

    async def renew(self) -> None:
        """Close every connection; the next statement makes new ones."""
        for database in self.databases:
            await database.close()

    async def checked_out(self) -> int:
        pools = [(await database.engine()).pool for database in self.databases]
        return sum(pool.checkedout() for pool in pools)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[Stage]:
    """Two SQLite files."""
    async with contextlib.AsyncExitStack() as stack:
        databases: list[Database] = []
        judges: list[Judge] = []
        for name in ("first", "second"):
            connection = sqlite3.connect(folder / f"{name}.db", isolation_level=None)
            stack.callback(connection.close)
            for table in _TABLES:
                connection.execute(table)
            database = Database(f"sqlite:///{folder / name}.db", name=name)
            databases.append(await stack.enter_async_context(database))
            judges.append(SqliteJudge(connection))
        yield Stage("sqlite", databases, judges)


@contextlib.asynccontextmanager
async def on_postgres(server: postgres.Server) -> AsyncIterator[Stage]:
    """Two databases of one server, made for this stage and dropped with it."""
    async with contextlib.AsyncExitStack() as stack:
        admin = await asyncpg.connect(server.admin_url)
        stack.push_async_callback(admin.close)
        databases: list[Database] = []
        judges: list[Judge] = []
        for name in ("first", "second"):
            label = f"txkit_stateful_{name}_{id(stack):x}"
            await admin.execute(f'CREATE DATABASE "{label}" TEMPLATE template0 STRATEGY file_copy')
            stack.push_async_callback(admin.execute, f'DROP DATABASE "{label}" WITH (FORCE)')
            connection = await asyncpg.connect(server.url(label))
            stack.push_async_callback(connection.close)
            for table in _TABLES:
                await connection.execute(table)
            options: dict[str, Any] = {"connect_args": {"ssl": False}, "pool_size": 10}
            database = Database(server.url(label), name=name, **options)
            databases.append(await stack.enter_async_context(database))
            judges.append(PostgresJudge(await connection.prepare(_ROWS.format("$1"))))
        yield Stage("postgres", databases, judges)


class Theatre:
    """A stage with an event loop of its own, for code that is not async itself."""

    def __init__(self, make: contextlib.AbstractAsyncContextManager[Stage]) -> None:
        self.loop = asyncio.new_event_loop()
        self._make = make

    def __enter__(self) -> Self:
        self.stage = self.loop.run_until_complete(self._make.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.loop.run_until_complete(self._make.__aexit__(None, None, None))
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()
