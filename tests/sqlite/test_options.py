"""isolation, read_only and deferrable on SQLite: one level, the strictest; read-only is real."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_atomic import Note
from tests.boundary.test_joining_options import OPTIONS, _name
from tests.conftest import SqliteJudge, opened
from tests.notes import Boom, count, write
from txkit import (
    CommitOutcomeUnknownError,
    Database,
    TransactionTimeoutError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_atomic_session,
    rollback_db_session,
    transactional,
)

READ_ONLY: dict[str, Any] = {
    "required": transactional(read_only=True),
    "requires_new": transactional(propagation="requires_new", read_only=True),
    "new_context": new_context(read_only=True),
    "deferrable": transactional(isolation="SERIALIZABLE", read_only=True, deferrable=True),
    "with a time limit": transactional(read_only=True, timeout_s=60),
}
EVERY_WAY = pytest.mark.parametrize("way", READ_ONLY)
REFUSED = pytest.raises(OperationalError, match="readonly database")


@BOTH_FACES
@pytest.mark.parametrize("options", OPTIONS, ids=_name)
async def test_every_option_is_honoured(
    lite: Database, sqlite_judge: SqliteJudge, run: Run, options: dict[str, Any]
) -> None:
    """Each level is, by SQLite's one; who may write, writes, who may not, does not."""

    async def body() -> None:
        assert await count(lite) == 0
        assert await ask(lite, "PRAGMA query_only") == int(bool(options["read_only"]))
        with REFUSED if options["read_only"] else contextlib.nullcontext():
            await write(lite, "a")
        if options["read_only"]:
            await rollback_db_session(lite)

    await run(transactional(**options), body)
    assert await sqlite_judge.texts() == ["a"] * (not options["read_only"])


@BOTH_FACES
@EVERY_WAY
@pytest.mark.parametrize("through", ["core", "orm", "ddl", "atomic", "joined", "nested"])
async def test_read_only_is_enforced(
    lite: Database, sqlite_judge: SqliteJudge, run: Run, way: str, through: str
) -> None:
    async def body() -> None:
        assert await count(lite) == 0
        if through == "core":
            await write(lite, "refused")
        elif through == "orm":
            (await db_session(lite)).add(Note(text="refused"))
            await (await db_session(lite)).flush()
        elif through == "ddl":
            await ask(lite, "CREATE TABLE refused (id INTEGER)")
        elif through == "atomic":
            await atomic(lite)(write)(lite, "refused")
        else:
            how = "required" if through == "joined" else "nested"
            await transactional(propagation=how)(write)(lite, "refused")

    with REFUSED:
        await run(READ_ONLY[way], body)
    assert await sqlite_judge.texts() == []


@EVERY_WAY
async def test_every_transaction_of_the_unit_only_reads(lite: Database, way: str) -> None:
    async with READ_ONLY[way]:
        for end in (commit_db_session, rollback_db_session, close_db_session):
            assert await ask(lite, "PRAGMA query_only") == 1
            await end(lite)
        async with atomic(lite):
            assert await ask(lite, "PRAGMA query_only") == 1
        await count(lite)
        async with transactional(propagation="nested"):
            assert await ask(lite, "PRAGMA query_only") == 1


async def test_readers_do_not_wait_for_the_writer_nor_it_for_them(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    """Scenario: two read-only units are open while another connection writes and commits.
    Outcome: nobody waits, and each reader goes on to see what was there when it began."""
    async with transactional(read_only=True):
        assert await count(lite) == 0
        async with new_context(read_only=True):
            assert await count(lite) == 0
            async with new_context:
                await write(lite, "a")
            assert await sqlite_judge.texts() == ["a"]
            assert await count(lite) == 0
        assert await count(lite) == 0
        await commit_db_session(lite)
        assert await count(lite) == 1


async def test_reader_begins_while_a_writer_is_at_it(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    writer = sqlite3.connect(sqlite_judge.path, isolation_level=None, timeout=0)
    writer.execute("BEGIN IMMEDIATE")
    async with transactional(read_only=True):
        assert await count(lite) == 0
    writer.execute("ROLLBACK")
    writer.close()


async def test_joining_what_may_write_it_is_not_enforced(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    async with transactional():
        await write(lite, "a")
        await transactional(read_only=True)(write)(lite, "b")
    assert await sqlite_judge.texts() == ["a", "b"]


async def _ends(db: Database, end: str) -> None:
    if end == "exception":
        raise Boom
    if end == "cancellation":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()
    if end == "refused write":
        await write(db, "refused")
    if end == "timeout":
        await asyncio.Event().wait()
    if end == "close by hand":
        await close_db_session(db)
    if end == "early commit":
        await commit_db_session(db)
    if end in {"COMMIT", "ROLLBACK"}:
        await (await db_session(db)).execute(text(end))


ENDS = {
    "return": None,
    "exception": Boom,
    "cancellation": asyncio.CancelledError,
    "refused write": OperationalError,
    "timeout": TransactionTimeoutError,
    "close by hand": None,
    "early commit": None,
    "COMMIT": CommitOutcomeUnknownError,
    "ROLLBACK": CommitOutcomeUnknownError,
}


@BOTH_FACES
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("factory", [None, async_sessionmaker], ids=["ours", "user's"])
async def test_next_user_of_the_connection_may_write(
    sqlite_judge: SqliteJudge, run: Run, end: str, factory: Any
) -> None:
    """Scenario: a read-only unit ends in every way; the pool has one connection.
    Outcome: nothing of it is left for a unit, a session, or a connection of the engine's."""

    async def body() -> None:
        assert await ask(db, "PRAGMA query_only") == 1
        await _ends(db, end)

    unit = transactional(read_only=True, timeout_s=0.05 if end == "timeout" else 60)
    async for db in opened(sqlite_judge, session_factory=factory, pool_size=1, max_overflow=0):
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                expected = ENDS[end]
                if expected is not None:
                    stack.enter_context(pytest.raises(expected))
                await run(unit, body)
            async with (await db.engine()).begin() as connection:
                await connection.execute(text("INSERT INTO note (text) VALUES ('raw')"))
            async with new_non_ctx_atomic_session(db) as session:
                await session.execute(text("INSERT INTO note (text) VALUES ('session')"))
            async with transactional():
                await write(db, "unit")
            async with transactional(propagation="never"):
                await write(db, "autocommit")
    assert await sqlite_judge.texts() == ["raw", "session", "unit", "autocommit"] * 2
