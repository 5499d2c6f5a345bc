"""A lock that somebody holds: what a unit inside another one waits for, and what it costs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.roundtrip_cases import INSERT
from tests.postgres.wanted import SOON_S, change, in_the_same_task
from tests.postgres.watching import bystander, locked_row
from tests.wire import wire_to
from txkit import (
    Database,
    PoolStarvationError,
    TransactionTimeoutError,
    db_session,
    new_context,
    rollback_db_session,
    run_in_new_ctx,
    transactional,
)

pytestmark = pytest.mark.usefixtures("row")


async def test_unit_that_waits_for_its_caller_through_a_stranger(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: a stranger holds what the unit wants, and waits for the unit's caller himself."""
    await pg.fetch("INSERT INTO note VALUES (2000, 'second')")
    async with bystander(pg) as stranger:
        async with transactional(name="import_day"):
            await change(db, "outer")
            await stranger.execute("UPDATE note SET text = 'stranger' WHERE id = 2000")
            waiting = asyncio.create_task(
                stranger.execute("UPDATE note SET text = 'stranger' WHERE id = 1000")
            )
            blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not await pg.fetch(blocked):
                pass
            async with asyncio.timeout(SOON_S):
                with pytest.raises(PoolStarvationError, match="import_day"):
                    async with new_context():
                        session = await db_session(db)
                        await session.execute(text("SELECT FROM note WHERE id = 2000 FOR UPDATE"))
        await waiting
    assert await pg.texts() == ["stranger", "stranger"]


async def test_server_is_asked_beside_a_full_pool(pg: PostgresJudge) -> None:
    """As the engine connects: its listener for credentials is asked, too."""
    connected: list[object] = []

    def factory(_: object) -> AsyncEngine:
        url = pg.url.replace("postgresql:", "postgresql+asyncpg:")
        engine = create_async_engine(url, pool_size=2, max_overflow=0, connect_args={"ssl": False})
        event.listen(engine.sync_engine, "do_connect", lambda *_: connected.append(None))
        return engine

    async with Database(engine_factory=factory) as db:
        async with transactional(name="import_day"):
            await change(db, "outer")
            async with asyncio.timeout(SOON_S):
                with pytest.raises(PoolStarvationError, match="import_day"):
                    await in_the_same_task(db)
        assert len(connected) == 3
        assert len(await pg.backends()) == 2
    assert await pg.texts() == ["outer"]


async def test_lock_of_a_stranger_is_waited_for(db: Database, pg: PostgresJudge) -> None:
    """For longer than a caller's would be; the caller holds another row."""
    await pg.fetch("INSERT INTO note VALUES (2000, 'second')")

    async def wants() -> None:
        session = await db_session(db)
        await session.execute(text("UPDATE note SET text = 'inner' WHERE id = 2000"))

    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with transactional():
        await change(db, "outer")
        async with bystander(pg) as stranger:
            await stranger.execute("SELECT FROM note WHERE id = 2000 FOR UPDATE")
            unit = asyncio.create_task(run_in_new_ctx(wants))
            await asyncio.wait({unit}, timeout=6.2)
            assert not unit.done()
        await unit
    assert loop.time() - begin > 6
    assert await pg.texts() == ["outer", "inner"]


async def test_child_that_nobody_awaits_waits_for_its_parents_row(
    db: Database, pg: PostgresJudge
) -> None:
    async with transactional():
        await change(db, "outer")
        child = asyncio.create_task(in_the_same_task(db))
        while not await pg.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            pass
        await write(db, "parent again")
    await child
    assert sorted(await pg.texts()) == ["inner", "parent again"]


async def test_unit_is_told_once_the_server_takes_the_question(
    db: Database, pg: PostgresJudge, caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario: the server takes no new connection when it is asked for the first time."""
    url, _, name = pg.url.rpartition("/")
    admin = await asyncpg.connect(f"{url}/postgres")

    async def allow_later() -> None:
        while "asking who blocks it failed" not in caplog.text:
            await asyncio.sleep(0)
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    caplog.set_level(logging.DEBUG, logger="txkit")
    async with transactional():
        await change(db, "outer")
        async with new_context():  # which has its connection
            await write(db, "never")
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            allowing = asyncio.create_task(allow_later())
            with pytest.raises(PoolStarvationError):
                await change(db, "inner")
            await rollback_db_session(db)
        await allowing
    await admin.close()
    (line,) = [line for line in caplog.messages if "asking who" in line]
    assert "'inner'" not in line
    assert await pg.texts() == ["outer"]


async def test_unit_cancelled_while_it_waits_is_gone_at_once(
    db: Database, pg: PostgresJudge
) -> None:
    async with transactional():
        await change(db, "outer")
        unit = asyncio.create_task(in_the_same_task(db))
        while not await pg.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            pass
        unit.cancel()
        await asyncio.wait({unit}, timeout=2)
        assert unit.cancelled()
    assert await pg.texts() == ["outer"]


async def test_timeout_of_the_unit_goes_first(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        with pytest.raises(TransactionTimeoutError):
            await new_context(timeout_s=0.2)(change)(db, "inner")
    assert await pg.texts() == ["outer"]


async def test_lock_that_is_let_go_of_in_time_is_got(db: Database, pg: PostgresJudge) -> None:
    await pg.fetch("DELETE FROM note")
    async with locked_row(pg):
        unit = asyncio.create_task(transactional(run_in_new_ctx)(change, db, "inner"))
        while not await pg.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            pass
    await unit
    assert await pg.texts() == ["inner"]


async def test_nothing_is_sent_for_it_while_nobody_is_blocked(pg: PostgresJudge) -> None:
    """Outcome: what two units send that know nothing of each other, on as many connections."""
    options: dict[str, Any] = {"pool_size": 2, "connect_args": {"ssl": False}}
    async with wire_to(pg.url) as wire, Database(wire.url, **options) as db:

        async def unit(words: str) -> None:
            async with transactional():
                await write(db, words)
                await run_in_new_ctx(change, db, words)

        for _ in range(2):  # the connections change places, and each statement is prepared on both
            await unit("warm")
        begun, wire.round_trips = len(wire.sent), 0
        await unit("again")
        sent = wire.sent[begun:]
        changes = "UPDATE note SET text=$1::VARCHAR WHERE note.id = $2::INTEGER"
        assert sent == ["BEGIN", INSERT, "BEGIN", changes, "COMMIT", "COMMIT"]
        assert wire.round_trips == len(sent)
        assert len(await pg.backends()) == 2
