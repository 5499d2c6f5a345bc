"""A ledger on each database, and a second connection to it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from samples.ledger.database import open_database
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from tests.conftest import PostgresJudge


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


def sqlite_rows(file: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, pg: PostgresJudge, tmp_path: Path) -> Place:
    """A new database of either kind."""
    if request.param == "postgresql":
        return Place(pg.url, pg, None)
    file = tmp_path / "ledger.db"
    return Place(f"sqlite:///{file}", None, file)


@pytest.fixture
async def ledger(place: Place) -> AsyncIterator[Ledger]:
    """A ledger with its chart of accounts."""
    async with open_database(place.url) as database:
        await make_tables(database)
        yield Ledger(database)
        assert (await database.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
