"""``timeout_s`` on the server: what is left of the time, in each transaction, riding on its BEGIN."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.watching import locked_row, pool_of_one
from tests.postgres.wire import wired
from txkit import (
    Database,
    TransactionTimeoutError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    new_context,
    rollback_db_session,
    transactional,
)

BOTH_SETTINGS = pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])


async def limit_ms(db: Database, setting: str = "statement_timeout") -> int:
    """Ask for a setting as the server has it, in milliseconds; 0: none."""
    asked = f"SELECT setting::int FROM pg_settings WHERE name = '{setting}'"
    found: int = await ask(db, asked)
    return found


@BOTH_FACES
@BOTH_SETTINGS
@pytest.mark.parametrize("way", ["required", "requires_new", "new_context"])
async def test_server_knows_what_is_left(db: Database, run: Run, setting: str, way: str) -> None:
    async def body() -> None:
        assert 59_000 < await limit_ms(db, setting) <= 60_000

    options: dict[str, Any] = {} if way == "new_context" else {"propagation": way}
    unit = new_context if way == "new_context" else transactional
    await run(unit(timeout_s=60, **options), body)


@BOTH_FACES
@pytest.mark.parametrize("end", [commit_db_session, rollback_db_session, close_db_session])
async def test_each_later_transaction_has_what_is_left_then(
    db: Database, run: Run, end: Any
) -> None:
    async def body() -> None:
        last = 60_000
        for _ in range(3):
            for setting in ("statement_timeout", "lock_timeout"):
                left = await limit_ms(db, setting)
                assert 0 < left <= last
            await ask(db, "SELECT pg_sleep(0.01)")
            await end(db)
            last = left - 10
        async with atomic(db):
            assert 0 < await limit_ms(db) <= last

    await run(transactional(timeout_s=60), body)


@BOTH_FACES
async def test_deadline_spans_an_early_commit(pg: PostgresJudge, run: Run) -> None:
    """The second transaction does not begin the time anew."""

    async def body() -> None:
        await write(db, "kept")
        await ask(db, "SELECT pg_sleep(0.6)")
        await commit_db_session(db)
        await write(db, "lost")
        await ask(db, "SELECT pg_sleep(60)")

    loop = asyncio.get_running_loop()
    async with pool_of_one(pg) as db:
        start = loop.time()
        with pytest.raises(TransactionTimeoutError):
            await run(transactional(timeout_s=1), body)
        assert 1 <= loop.time() - start < 1.5
    assert await pg.texts() == ["kept"]


@pytest.mark.parametrize("factory", [None, async_sessionmaker], ids=["ours", "user's"])
async def test_second_begin_carries_it_as_well(pg: PostgresJudge, factory: Any) -> None:
    """No round trip of its own: BEGIN, statement, COMMIT, each time."""
    async with wired(pg, session_factory=factory) as (db, wire):
        for _ in range(2):
            wire.clear()
            async with transactional(timeout_s=60):
                await ask(db, "SELECT 1")
                await commit_db_session(db)
                await ask(db, "SELECT 1")
        assert wire.verbs == ["BEGIN", "SELECT", "COMMIT"] * 2
        assert wire.round_trips == 6
        assert all("set_config" in one for one in wire.sent if one.startswith("BEGIN"))


@BOTH_SETTINGS
@pytest.mark.parametrize(("own", "expected"), [("50ms", 50), ("1h", None), ("0", None)])
async def test_tighter_limit_of_the_servers_stays(
    pg: PostgresJudge, setting: str, own: str, expected: int | None
) -> None:
    """A looser one, or none, gives way to what is left."""
    name = pg.url.rpartition("/")[2]
    await pg.fetch(f"ALTER DATABASE \"{name}\" SET {setting} = '{own}'")
    async with pool_of_one(pg) as db:
        for _ in range(2):
            async with transactional(timeout_s=60):
                found = await limit_ms(db, setting)
            if expected is None:
                assert 59_000 < found <= 60_000
            else:
                assert found == expected
            async with transactional():
                assert await limit_ms(db, setting) == {"50ms": 50, "1h": 3_600_000, "0": 0}[own]


@BOTH_FACES
async def test_what_the_servers_own_limit_stops_is_no_timeout_of_ours(
    pg: PostgresJudge, run: Run
) -> None:
    async def body() -> None:
        await write(db, "lost")
        await ask(db, "SELECT pg_sleep(60)")

    name = pg.url.rpartition("/")[2]
    await pg.fetch(f"ALTER DATABASE \"{name}\" SET statement_timeout = '20ms'")
    async with pool_of_one(pg) as db:
        with pytest.raises(DBAPIError) as caught:
            await run(transactional(timeout_s=60), body)
        assert caught.value.orig.sqlstate == "57014"  # type: ignore[union-attr]
    assert await pg.texts() == []


@pytest.mark.parametrize("waits", ["statement", "lock"])
async def test_server_stops_it_while_the_event_loop_is_blocked(
    db: Database, pg: PostgresJudge, waits: str
) -> None:
    """Scenario: the client's loop stands still for as long as a thread sees the statement run.
    Outcome: the server ends it by itself, at the deadline; the unit is told when the loop is back."""
    statement = "SELECT pg_sleep(60)" if waits == "statement" else "DELETE FROM note RETURNING id"
    waiting = "wait_event = 'PgSleep'" if waits == "statement" else "wait_event_type = 'Lock'"

    @transactional(timeout_s=1)
    async def unit() -> None:
        await write(db, "lost")
        await ask(db, statement)

    async with locked_row(pg):
        task = asyncio.create_task(unit())
        running = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        running += f" AND query = $1 AND {waiting}"
        while not await pg.fetch(running, statement):
            assert not task.done()
        watcher = threading.Thread(
            target=asyncio.run, args=(_until_gone(pg.url, running, statement),), daemon=True
        )
        watcher.start()
        watcher.join(10)  # nothing else runs in this loop meanwhile
        assert not watcher.is_alive()
        with pytest.raises(TransactionTimeoutError):
            await task
    assert await pg.texts() == ["locked"]


async def _until_gone(url: str, running: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    while await connection.fetch(running, statement):
        await asyncio.sleep(0.01)
    await connection.close()


async def _unused(db: Database) -> None:
    await db_session(db)


async def _connected(db: Database) -> None:
    """Check a connection out; BEGIN goes out with the first statement only."""
    await (await db_session(db)).connection()


async def _connected_and_fails(db: Database) -> None:
    await _connected(db)
    raise Boom


@BOTH_FACES
@pytest.mark.parametrize("body", [_unused, _connected, _connected_and_fails])
async def test_limit_that_was_never_sent_is_not_sent_for_another_unit(
    pg: PostgresJudge, run: Run, body: Any
) -> None:
    async with pool_of_one(pg) as db:
        async with transactional():
            await write(db, "a")
        with contextlib.suppress(Boom):
            await run(transactional(timeout_s=60), lambda: body(db))
        async with transactional():
            assert await limit_ms(db) == await limit_ms(db, "lock_timeout") == 0
        async with (await db.engine()).connect() as connection:
            found = await connection.exec_driver_sql("SHOW statement_timeout")
            assert found.scalar() == "0"


async def test_limit_of_a_joined_call_is_not_the_servers(db: Database) -> None:
    """It would outlive the call, in the transaction that it joined."""
    async with transactional():
        await transactional(timeout_s=60)(limit_ms)(db)
        assert await limit_ms(db) == 0
        async with transactional(propagation="nested", timeout_s=60):
            assert await limit_ms(db) == 0


async def test_limit_is_set_with_a_readonly_serializable_begin(db: Database) -> None:
    async with transactional(isolation="SERIALIZABLE", read_only=True, timeout_s=60):
        assert 0 < await limit_ms(db) <= 60_000
        assert await ask(db, "SHOW transaction_isolation") == "serializable"
        assert await ask(db, "SHOW transaction_read_only") == "on"
