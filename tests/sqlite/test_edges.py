"""Failures at the edges on SQLite: a locked file, a refused COMMIT, a statement that was cancelled.

As on PostgreSQL: which error leaves, which rows are there, which hooks ran, and that
the next unit works.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.mistakes import swallowed
from tests.conftest import SqliteJudge, opened
from tests.notes import write
from tests.told import committed, rolled_back, watch
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    transactional,
)

DEFERRED = """
CREATE TABLE owner (id INTEGER PRIMARY KEY);
CREATE TABLE part (owner INTEGER REFERENCES owner (id) DEFERRABLE INITIALLY DEFERRED)
"""
ORPHAN = "INSERT INTO part VALUES (1)"
LONG = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT max(n) FROM n"


@pytest.fixture
async def lite(sqlite_judge: SqliteJudge) -> AsyncIterator[Database]:
    """On one connection, which does not wait for a lock."""
    options = {"pool_size": 1, "max_overflow": 0, "connect_args": {"timeout": 0}}
    async for db in opened(sqlite_judge, name="lite", **options):
        yield db


@contextlib.contextmanager
def locked(judge: SqliteJudge) -> Iterator[None]:
    """Somebody else writes."""
    with contextlib.closing(sqlite3.connect(judge.path, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        yield
        rival.execute("ROLLBACK")


class TestLocked:
    """BEGIN IMMEDIATE is refused: nothing began."""

    @BOTH_FACES
    async def test_error_leaves_and_the_next_unit_works(
        self, lite: Database, sqlite_judge: SqliteJudge, run: Run
    ) -> None:
        async def body() -> None:
            watch(told, "unit")
            await write(lite, "lost")

        told: list[str] = []
        for unit in (transactional(), atomic(lite)):
            with locked(sqlite_judge), pytest.raises(OperationalError, match="locked"):
                await run(unit, body)
            assert told == rolled_back("unit")
            told.clear()
        await transactional(write)(lite, "next")
        assert await sqlite_judge.texts() == ["next"]

    async def test_swallowed_dooms_nothing_since_nothing_began(
        self, lite: Database, sqlite_judge: SqliteJudge
    ) -> None:
        async with transactional():
            with locked(sqlite_judge), swallowed(OperationalError):
                await write(lite, "not written")
            await write(lite, "kept")
        assert await sqlite_judge.texts() == ["kept"]

    async def test_joined_call_that_it_left_dooms_all_the_same(
        self, lite: Database, sqlite_judge: SqliteJudge
    ) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                with locked(sqlite_judge), swallowed(OperationalError) as first:
                    await transactional(write)(lite, "not written")
        assert caught.value.__cause__ is first.error
        assert await sqlite_judge.texts() == []


class TestRefusedCommit:
    """SQLite leaves the transaction open: it must be rolled back before anybody goes on."""

    @pytest.fixture(autouse=True)
    def tables(self, sqlite_judge: SqliteJudge) -> None:
        with contextlib.closing(sqlite3.connect(sqlite_judge.path)) as connection:
            connection.executescript(DEFERRED)

    @BOTH_FACES
    async def test_error_leaves_and_the_next_unit_works(
        self, lite: Database, sqlite_judge: SqliteJudge, run: Run
    ) -> None:
        async def body() -> None:
            await write(lite, "lost")
            watch(told, "unit")
            await ask(lite, f"{ORPHAN} RETURNING owner")

        told: list[str] = []
        for unit in (transactional(), atomic(lite)):
            with pytest.raises(IntegrityError, match="FOREIGN KEY"):
                await run(unit, body)
            assert told == ["unit: before", *rolled_back("unit")]
            told.clear()
        await transactional(write)(lite, "next")
        assert await sqlite_judge.texts() == ["next"]

    @pytest.mark.parametrize("by", ["function", "session", "begin"])
    async def test_commit_by_hand_is_over_and_the_unit_goes_on(
        self, lite: Database, sqlite_judge: SqliteJudge, by: str
    ) -> None:
        told: list[str] = []
        async with transactional():
            session = await db_session(lite)
            with pytest.raises(IntegrityError):
                if by == "begin":
                    async with session.begin():
                        await session.execute(text(ORPHAN))
                        watch(told, "lost")
                else:
                    await session.execute(text(ORPHAN))
                    watch(told, "lost")
                    await (commit_db_session(lite) if by == "function" else session.commit())
            assert told == ["lost: before", *rolled_back("lost")]
            told.clear()
            await write(lite, "kept")
            watch(told, "kept")
        assert told == committed("kept")
        assert await sqlite_judge.texts() == ["kept"]

    async def test_block_fails_alone(self, lite: Database, sqlite_judge: SqliteJudge) -> None:
        async with transactional():
            with pytest.raises(IntegrityError):
                async with atomic(lite) as session:
                    await session.execute(text(ORPHAN))
            await write(lite, "kept")
        assert await sqlite_judge.texts() == ["kept"]

    async def test_session_outside_any_context(
        self, lite: Database, sqlite_judge: SqliteJudge
    ) -> None:
        with pytest.raises(IntegrityError):
            async with new_non_ctx_atomic_session(lite) as session:
                await session.execute(text(ORPHAN))
        await transactional(write)(lite, "next")
        assert await sqlite_judge.texts() == ["next"]


async def test_cancelled_statement_that_was_swallowed_is_no_success(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    """A statement that would never end is broken off, and its transaction with it."""
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            await write(lite, "lost")
            with swallowed(TimeoutError):
                async with asyncio.timeout(0.05):
                    await (await db_session(lite)).execute(text(LONG))
    await transactional(write)(lite, "next")
    assert await sqlite_judge.texts() == ["next"]
