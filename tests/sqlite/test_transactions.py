"""SQLite's transactions are real: a second connection sees all of a unit, or nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.conftest import SqliteJudge, opened
from tests.notes import Boom, count, write
from txkit import (
    Database,
    PoolStarvationError,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_session,
    transactional,
)


@pytest.fixture(params=["url", "engine_factory"])
async def lite(
    request: pytest.FixtureRequest, sqlite_judge: SqliteJudge
) -> AsyncIterator[Database]:
    """A Database on SQLite, in both ways that it can be made."""

    def factory(_: object) -> AsyncEngine:
        return create_async_engine(sqlite_judge.url.replace("sqlite:", "sqlite+aiosqlite:"))

    if request.param == "url":
        async for one in opened(sqlite_judge, name="lite"):
            yield one
    else:
        async with Database(engine_factory=factory, name="lite") as one:
            yield one


async def run(db: Database, statement: str) -> Any:
    return await (await db_session(db)).execute(text(statement))


def look(judge: SqliteJudge, query: str) -> list[Any]:
    connection = sqlite3.connect(judge.path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_outer_rollback_takes_a_released_savepoint_with_it(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional
    async def unit() -> None:
        session = await db_session(lite)
        async with session.begin_nested():
            await write(lite, "released")
        raise Boom

    with pytest.raises(Boom):
        await unit()
    assert await sqlite_judge.texts() == []


async def test_savepoint_rolled_back_loses_only_its_own(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional
    async def unit() -> None:
        session = await db_session(lite)
        async with session.begin_nested() as savepoint:  # before any other write
            await write(lite, "lost")
            await savepoint.rollback()
        await write(lite, "kept")

    await unit()
    assert await sqlite_judge.texts() == ["kept"]


async def test_ddl_is_rolled_back(lite: Database, sqlite_judge: SqliteJudge) -> None:
    @transactional
    async def unit() -> None:
        await write(lite, "before")
        await run(lite, "CREATE TABLE other (id INTEGER)")
        await run(lite, "DROP TABLE note")
        await run(lite, "INSERT INTO other VALUES (1)")
        raise Boom

    with pytest.raises(Boom):
        await unit()
    assert look(sqlite_judge, "SELECT name FROM sqlite_master") == [("note",)]


async def test_concurrent_increments_all_count(lite: Database, sqlite_judge: SqliteJudge) -> None:
    await transactional(run)(lite, "CREATE TABLE counter (v INTEGER)")
    await transactional(run)(lite, "INSERT INTO counter VALUES (0)")

    @new_context
    async def increment() -> None:
        v = (await run(lite, "SELECT v FROM counter")).scalar_one()
        await asyncio.sleep(0)
        await run(lite, f"UPDATE counter SET v = {v + 1}")

    await asyncio.gather(*(increment() for _ in range(8)))
    assert look(sqlite_judge, "SELECT v FROM counter") == [(8,)]


async def test_read_is_never_of_a_stale_snapshot(lite: Database, sqlite_judge: SqliteJudge) -> None:
    """Scenario: a unit reads, and another connection tries to write before it does.

    Outcome: the other one is told "locked", so that what the unit read stays true until its end.
    """

    @transactional
    async def unit() -> None:
        seen = await count(lite)
        other = sqlite3.connect(sqlite_judge.path, timeout=0)
        try:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("INSERT INTO note (text) VALUES ('between')")
        finally:
            other.close()
        await write(lite, str(seen))

    await unit()
    assert await sqlite_judge.texts() == ["0"]


async def test_begin_immediate_is_sent_once_with_the_first_statement(lite: Database) -> None:
    sent: list[str] = []
    engine = (await lite.engine()).sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def hear(_c: object, _u: object, statement: str, *_: object) -> None:
        sent.append(statement)

    @transactional
    async def unit() -> None:
        await db_session(lite)
        assert sent == []
        await run(lite, "SELECT 1")
        await run(lite, "SELECT 2")

    await unit()
    assert sent == ["BEGIN IMMEDIATE", "SELECT 1", "SELECT 2"]


async def test_pragmas(lite: Database, sqlite_judge: SqliteJudge) -> None:
    @transactional
    async def unit() -> list[object]:
        names = ["foreign_keys", "journal_mode", "busy_timeout"]
        return [(await run(lite, f"PRAGMA {name}")).scalar_one() for name in names]

    assert await unit() == [1, "wal", 5000]


async def test_foreign_keys_are_enforced(lite: Database) -> None:
    await transactional(run)(
        lite, "CREATE TABLE tag (note INTEGER REFERENCES note, text VARCHAR(9))"
    )
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await transactional(run)(lite, "INSERT INTO tag VALUES (404, 'x')")


@pytest.mark.parametrize("level", ["SERIALIZABLE", "READ UNCOMMITTED"])
async def test_isolation_level_leaves_transactions_real(
    lite: Database, sqlite_judge: SqliteJudge, level: str
) -> None:
    """Scenario: a session's isolation level puts the driver's own transaction control back."""
    engine = await lite.engine()
    for _ in range(2):
        async with engine.execution_options(isolation_level=level).connect() as connection:
            await connection.execute(text("CREATE TABLE other (id INTEGER)"))
            await connection.rollback()
    assert look(sqlite_judge, "SELECT name FROM sqlite_master") == [("note",)]


async def test_autocommit_sends_no_begin_and_leaves_later_transactions_real(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    engine = (await lite.engine()).execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO note (text) VALUES ('at once')"))
        assert await sqlite_judge.texts() == ["at once"]
        await connection.execute(text("VACUUM"))
    async with (await lite.engine()).connect() as connection:
        await connection.execute(text("DROP TABLE note"))
        await connection.rollback()
    assert await sqlite_judge.texts() == ["at once"]


async def test_unit_inside_a_caller_that_holds_the_lock_is_refused_at_once(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional(name="import_day")
    async def outer() -> None:
        await write(lite, "outer")
        with pytest.raises(PoolStarvationError, match="import_day") as caught:
            async with asyncio.timeout(2):
                await new_context(name="audit")(write)(lite, "inner")
        assert (caught.value.holders, caught.value.function) == (("import_day",), "audit")
        assert caught.value.database is lite
        with pytest.raises(PoolStarvationError):
            async with new_non_ctx_session(lite) as session:
                await session.execute(text("SELECT 1"))

    await outer()
    assert await sqlite_judge.texts() == ["outer"]


@pytest.mark.parametrize("first", ["nothing", "session", "committed"])
async def test_unit_inside_a_caller_that_holds_no_lock_runs(
    lite: Database, sqlite_judge: SqliteJudge, first: str
) -> None:
    @transactional
    async def outer() -> None:
        if first != "nothing":
            await db_session(lite)
        if first == "committed":
            await write(lite, "outer")
            await commit_db_session(lite)
        await new_context(write)(lite, "inner")
        await write(lite, "after")

    await outer()
    assert (await sqlite_judge.texts())[-2:] == ["inner", "after"]
