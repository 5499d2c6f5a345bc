"""A lock that the suspended caller holds: the unit that waits for it is told, within seconds.

The server sees no deadlock, since the caller's backend is idle, and no limit is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.test_atomic import Note
from tests.conftest import PostgresJudge
from tests.notes import note, write
from tests.postgres.roundtrip_cases import INSERT
from tests.postgres.watching import bystander, locked_row, until_idle
from tests.wire import wire_to
from txkit import (
    Database,
    PoolStarvationError,
    TransactionTimeoutError,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_session,
    rollback_db_session,
    run_in_new_ctx,
    transactional,
)

SOON_S = 5
"""What the contract gives it."""


@pytest.fixture(autouse=True)
async def row(pg: PostgresJudge) -> AsyncIterator[None]:
    """One note, of which all these tests are about; afterwards nobody is at work or holds a lock."""
    await pg.fetch("INSERT INTO note VALUES (1000, 'first')")
    yield
    await until_idle(pg)
    assert not await pg.fetch("SELECT FROM pg_locks WHERE relation = 'note'::regclass")
    assert not [task for task in asyncio.all_tasks() if "txkit" in task.get_name()]


async def change(db: Database, words: str) -> None:
    session = await db_session(db)
    await session.execute(update(note).where(note.c.id == 1000).values(text=words))


async def in_the_same_task(db: Database) -> None:
    await new_context(name="inner")(change)(db, "inner")


async def as_requires_new(db: Database) -> None:
    await transactional(propagation="requires_new", name="inner")(change)(db, "inner")


async def as_a_block(db: Database) -> None:
    async with new_context(name="inner"):
        await change(db, "inner")


async def in_autocommit(db: Database) -> None:
    await transactional(propagation="not_supported", name="inner")(change)(db, "inner")


async def in_a_task(db: Database) -> None:
    await asyncio.create_task(in_the_same_task(db))


async def in_a_gathering(db: Database) -> None:
    await asyncio.gather(asyncio.sleep(0), in_the_same_task(db))


async def in_a_joined_function(db: Database) -> None:
    @transactional
    async def joined() -> None:
        await atomic(db, current_transaction="savepoint")(change)(db, "inner")

    async with new_context(name="inner"):
        await write(db, "never")
        await joined()


async def in_a_child_of_its_own(db: Database) -> None:
    async with new_context(name="inner"):
        await write(db, "never")
        await asyncio.gather(change(db, "inner"))


async def in_a_flush(db: Database) -> None:
    async with new_context(name="inner"):
        session = await db_session(db)
        found = (await session.scalars(select(Note).where(Note.id == 1000))).one()
        found.text = "inner"


async def two_levels_down(db: Database) -> None:
    async with new_context(name="between"):
        await write(db, "never")
        await in_the_same_task(db)


INNER = [
    in_the_same_task,
    as_requires_new,
    as_a_block,
    in_autocommit,
    in_a_task,
    in_a_gathering,
    in_a_joined_function,
    in_a_child_of_its_own,
    in_a_flush,
    two_levels_down,
]


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.__name__)
async def test_unit_that_waits_for_its_callers_row_is_told_and_the_caller_goes_on(
    db: Database, pg: PostgresJudge, inner: Any
) -> None:
    async with transactional(name="import_day"):
        await change(db, "outer")
        async with asyncio.timeout(SOON_S):
            with pytest.raises(PoolStarvationError) as caught:
                await inner(db)
        await write(db, "after")
    error = caught.value
    assert (error.function, error.holders, error.database) == ("inner", ("import_day",), db)
    for word in ["'inner'", "'import_day'", "lock", "rows", "@transactional", "by hand"]:
        assert word in str(error)
    assert sorted(await pg.texts()) == ["after", "outer"]


async def test_error_that_leaves_rolls_both_back(db: Database, pg: PostgresJudge) -> None:
    async with asyncio.timeout(SOON_S):
        with pytest.raises(PoolStarvationError):
            async with transactional():
                await change(db, "outer")
                await in_the_same_task(db)
    assert await pg.texts() == ["first"]


async def test_caller_rolls_back_and_the_unit_is_run_again(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        async with asyncio.timeout(SOON_S):
            with pytest.raises(PoolStarvationError):
                await in_the_same_task(db)
        await rollback_db_session(db)
        await in_the_same_task(db)
    assert await pg.texts() == ["inner"]


async def test_session_outside_any_context(db: Database, pg: PostgresJudge) -> None:
    async with transactional(name="import_day"):
        await change(db, "outer")
        async with asyncio.timeout(SOON_S), new_non_ctx_session(db) as session:
            with pytest.raises(PoolStarvationError, match="import_day"):
                await session.execute(text("SELECT FROM note FOR UPDATE"))
    assert await pg.texts() == ["outer"]


async def test_unit_beside_a_function_that_joined_the_waiting_caller(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: of two tasks that the boundary waits for, one works in its context, and locks the
    row that the other one's own unit wants. The first one's work ends with the boundary only."""
    has_changed = asyncio.Event()

    async def joined() -> None:
        await change(db, "outer")
        has_changed.set()

    async def beside() -> None:
        await has_changed.wait()
        await in_the_same_task(db)

    async with transactional(name="import_day"), asyncio.timeout(SOON_S):
        with pytest.raises(PoolStarvationError, match="import_day"):
            await asyncio.gather(joined(), beside())
    assert await pg.texts() == ["outer"]


async def test_savepoint_in_the_unit_undoes_it(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        async with new_context(), asyncio.timeout(SOON_S):
            await write(db, "inner")
            with pytest.raises(PoolStarvationError):
                async with (await db_session(db)).begin_nested():
                    await change(db, "never")
            await write(db, "inner again")
    assert sorted(await pg.texts()) == ["inner", "inner again", "outer"]


async def test_error_swallowed_in_the_unit_dooms_it(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with new_context():
                await write(db, "never")
                with pytest.raises(PoolStarvationError):
                    await change(db, "never")
        assert isinstance(caught.value.__cause__, PoolStarvationError)
    assert await pg.texts() == ["outer"]


@pytest.mark.parametrize("by_hand", [False, True], ids=["boundary", "by hand"])
async def test_commit_that_waits_for_its_callers_row(
    db: Database, pg: PostgresJudge, by_hand: bool
) -> None:
    """A deferred foreign key is looked at by COMMIT, which waits for whoever deletes the other row."""
    await pg.fetch("CREATE TABLE reply (note INT REFERENCES note DEFERRABLE INITIALLY DEFERRED)")
    async with transactional(name="import_day"):
        session: AsyncSession = await db_session(db)
        await session.execute(text("DELETE FROM note WHERE id = 1000"))
        async with asyncio.timeout(SOON_S):
            with pytest.raises(PoolStarvationError, match="import_day"):
                async with new_context(name="inner"):
                    other = await db_session(db)
                    await other.execute(text("INSERT INTO reply VALUES (1000)"))
                    if by_hand:
                        await commit_db_session(db)
    assert await pg.texts() == []
    assert await pg.fetch("SELECT * FROM reply") == []


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
