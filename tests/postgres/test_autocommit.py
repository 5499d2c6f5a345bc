"""Autocommit, asked of the server: no transaction is ever open, and nothing more is sent."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import ask
from tests.boundary.mistakes import driver
from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked
from tests.postgres.watching import backend_pid, kill_seen, locked_row, pool_of_one
from tests.postgres.wire import wired
from txkit import Database, UnexpectedRollbackError, db_session, transactional

OPEN_ONE = pytest.mark.parametrize("how", ["supports", "not_supported", "never"])


@OPEN_ONE
@pytest.mark.parametrize("fails", [False, True])
async def test_neither_begin_nor_commit_is_sent(pg: PostgresJudge, how: str, fails: bool) -> None:
    async with wired(pg) as (db, wire):

        @transactional(propagation=how)
        async def unit() -> None:
            await write(db, "a")
            await write(db, "b")
            if fails:
                raise Boom

        for _ in range(2):  # the second time the connection is there
            wire.clear()
            with pytest.raises(Boom) if fails else contextlib.nullcontext():
                await unit()
        assert wire.verbs == ["INSERT", "INSERT"]
        assert wire.round_trips == 2


@OPEN_ONE
async def test_backend_is_idle_between_statements(
    db: Database, pg: PostgresJudge, how: str
) -> None:
    async with transactional(propagation=how):
        await write(db, "a")
        assert [state for _, state in await pg.backends()] == ["idle"]


@OPEN_ONE
async def test_each_statement_is_a_transaction_of_its_own(db: Database, how: str) -> None:
    async with transactional(propagation=how):
        first = await ask(db, "SELECT pg_current_xact_id()::text")
        assert await ask(db, "SELECT pg_current_xact_id()::text") != first


async def test_what_no_transaction_may_hold_runs_beside_one(
    db: Database, pg: PostgresJudge
) -> None:
    """VACUUM and CREATE INDEX CONCURRENTLY, from inside a transaction that is set aside."""

    @transactional(propagation="not_supported")
    async def tidies() -> None:
        session = await db_session(db)
        await (await session.connection()).exec_driver_sql("VACUUM note")

    async with transactional():
        await write(db, "a")
        await tidies()
        assert await pg.texts() == []
    assert await pg.texts() == ["a"]


@OPEN_ONE
async def test_prepared_transaction_is_committed_through_the_driver(
    db: Database, pg: PostgresJudge, how: str
) -> None:
    """COMMIT PREPARED ends no transaction of the connection: none has to be open."""
    name = pg.url.rpartition("/")[2]
    await pg.fetch("BEGIN")
    await pg.fetch("INSERT INTO note (text) VALUES ('prepared')")
    await pg.fetch(f"PREPARE TRANSACTION '{name}'")
    try:
        async with transactional(propagation=how):
            await (await driver(await db_session(db))).execute(f"COMMIT PREPARED '{name}'")
            assert await pg.texts() == ["prepared"]
    finally:
        for one in await pg.fetch("SELECT gid FROM pg_prepared_xacts WHERE gid = $1", name):
            await pg.fetch(f"ROLLBACK PREPARED '{one['gid']}'")


@OPEN_ONE
async def test_cancelled_statement_is_gone_and_what_was_before_it_stays(
    db: Database, pg: PostgresJudge, how: str
) -> None:
    @transactional(propagation=how)
    async def unit() -> None:
        await write(db, "kept")
        await ask(db, "DELETE FROM note RETURNING id")

    async with locked_row(pg):
        task = asyncio.create_task(unit())
        await blocked(pg, "DELETE")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while await pg.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    assert await pg.texts() == ["kept", "locked"]


@OPEN_ONE
async def test_lost_connection_is_discarded_and_dooms_nothing(pg: PostgresJudge, how: str) -> None:
    """Scenario: the backend of a pool of one is killed in the body, which goes on afterwards.
    Outcome: what was durable stays, and the rest goes through another connection."""
    async with pool_of_one(pg) as db:
        async with transactional(propagation=how):
            await write(db, "a")
            killed = await backend_pid(db)
            await kill_seen(db, pg)
            with pytest.raises(DBAPIError):
                await write(db, "lost")
            session = await db_session(db)
            await session.rollback()
            await write(db, "b")
            assert await backend_pid(db) != killed
        assert await pg.texts() == ["a", "b"]


@pytest.mark.parametrize("how", ["requires_new", "required"])
async def test_truth_is_told_again_after_autocommit(db: Database, how: str) -> None:
    """A swallowed error dooms the transaction that is opened inside autocommit, and only that."""
    async with transactional(propagation="never"):
        await write(db, "a")
        with pytest.raises(UnexpectedRollbackError):
            async with transactional(propagation=how):
                with pytest.raises(DBAPIError):
                    await ask(db, "SELECT 1 / 0")
        await write(db, "b")
