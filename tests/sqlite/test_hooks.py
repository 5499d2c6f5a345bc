"""Hooks on SQLite alone: one writer, and a COMMIT that the file itself refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.conftest import SqliteJudge
from tests.notes import Boom, write
from tests.told import rolled_back, watch
from tests.ways import UNITS, Unit, each
from txkit import (
    Database,
    PoolStarvationError,
    after_completion,
    after_rollback,
    atomic,
    db_session,
    transactional,
)


@asynccontextmanager
async def savepoint(db: Database) -> AsyncIterator[None]:
    async with atomic(db, current_transaction="savepoint"):
        yield


@asynccontextmanager
async def nested(db: Database) -> AsyncIterator[None]:
    async with transactional(propagation="nested"):
        yield


@asynccontextmanager
async def users(db: Database) -> AsyncIterator[None]:
    async with (await db_session(db)).begin_nested():
        yield


@each("part", [savepoint, nested, users])
async def test_hook_of_a_savepoint_that_would_wait_for_its_caller_is_refused_at_once(
    lite: Database, part: Unit
) -> None:
    """Scenario: a savepoint was rolled back, and its hook wants to write in a unit of its own,
    while the boundary that waits for the hook holds the write lock.
    Outcome: an error that names the boundary, long before the driver's timeout of 5 seconds."""
    seen: list[PoolStarvationError] = []

    @transactional
    async def service() -> None:
        await write(lite, "never")

    async def hook(_: str) -> None:
        async with asyncio.timeout(2):
            with pytest.raises(PoolStarvationError) as caught:
                await service()
        seen.append(caught.value)

    @transactional(name="the holder")
    async def unit() -> None:
        await write(lite, "a")
        with pytest.raises(Boom) as caught:
            async with part(lite):
                after_completion(hook)
                await write(lite, "lost")
                raise Boom
        assert not hasattr(caught.value, "__notes__")

    await unit()
    assert [one.holders for one in seen] == [("the holder",)]


@each("unit", UNITS)
async def test_commit_that_is_refused_tells_of_a_rollback(
    lite: Database, sqlite_judge: SqliteJudge, unit: Unit
) -> None:
    """A deferred foreign key is looked at by COMMIT, which leaves the transaction open."""
    told: list[str] = []
    async with transactional():
        await (await db_session(lite)).execute(
            text(
                "CREATE TABLE reply (id INTEGER PRIMARY KEY, note INTEGER"
                " REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        async with unit(lite):
            await write(lite, "lost")
            watch(told, "unit")
            after_rollback(lambda: told.append("last"))
            await (await db_session(lite)).execute(text("INSERT INTO reply (note) VALUES (99)"))
    assert told == ["unit: before", *rolled_back("unit"), "last"]
    assert await sqlite_judge.texts() == []
