"""A ledger on each database, and a second connection to it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from samples.ledger.database import open_database
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from tests import server as postgres
from tests.conftest import PostgresJudge, new_postgres

UNEVEN_TRANSFERS = """
    SELECT key FROM transfer LEFT JOIN posting ON transfer_key = key
    GROUP BY key HAVING count(id) <> 2 OR sum(posting.amount_cents) <> 0
"""
WRONG_BALANCES = """
    SELECT name FROM account LEFT JOIN posting ON account = name
    GROUP BY name, balance_cents HAVING coalesce(sum(amount_cents), 0) <> balance_cents
"""
LOCK_WAITERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Place:
    """Where a ledger lives, seen by a second connection."""

    def __init__(self, url: str, judge: PostgresJudge | None, file: Path | None) -> None:
        self.url = url
        self.judge = judge
        self._file = file

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        if self.judge is not None:
            return [tuple(row) for row in await self.judge.fetch(query)]
        assert self._file is not None
        return sqlite_rows(self._file, query)

    async def books_balance(self) -> None:
        """Fail unless double entry holds, as the second connection sees it."""
        assert await self.rows("SELECT coalesce(sum(amount_cents), 0) FROM posting") == [(0,)]
        assert await self.rows(UNEVEN_TRANSFERS) == []
        assert await self.rows(WRONG_BALANCES) == []

    async def somebody_waits_for_a_lock(self, working: asyncio.Future[object]) -> None:
        """Wait until a backend of PostgreSQL waits for one; who works can't be done before."""
        assert self.judge is not None
        while await self.judge.connection.fetchval(LOCK_WAITERS) == 0:
            assert not working.done(), working
            await self.judge.connection.execute("SELECT pg_stat_clear_snapshot()")


def sqlite_rows(file: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(
    request: pytest.FixtureRequest, server: postgres.Server, tmp_path: Path
) -> AsyncIterator[Place]:
    """A new database of either kind."""
    if request.param == "postgresql":
        async for judge in new_postgres(server):
            yield Place(judge.url, judge, None)
    else:
        file = tmp_path / "ledger.db"
        yield Place(f"sqlite:///{file}", None, file)


@pytest.fixture
async def ledger(place: Place) -> AsyncIterator[Ledger]:
    """A ledger with its chart of accounts."""
    async with open_database(place.url) as database:
        await make_tables(database)
        yield Ledger(database)
        assert (await database.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
