"""A connection of which the driver half knows that it is lost: no COMMIT is taken for granted.

Always on a pool of one.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.boundary.faces import ask
from tests.boundary.mistakes import (
    Mistake,
    dbapi_cursor,
    driver,
    raw_execute,
    raw_fetch,
    run_async,
    swallowed,
)
from tests.notes import Boom, count
from tests.postgres.edges import Edge, Unit, atomic_alone, function, nested
from tests.told import rolled_back
from txkit import (
    CommitOutcomeUnknownError,
    UnexpectedRollbackError,
    db_session,
    transactional,
)


class TestLastWords:
    """The server's message that it ends the connection has arrived, the end of it has not."""

    async def last_words(self, edge: Edge) -> None:
        await edge.write_and_watch()
        edge.wire.lingers = True
        await edge.kill()
        await edge.wire.quiet()
        edge.wire.lingers = False

    @pytest.mark.parametrize("unit", [function, atomic_alone])
    async def test_end_is_no_success(self, edge: Edge, unit: Unit) -> None:
        with pytest.raises((UnexpectedRollbackError, CommitOutcomeUnknownError)):
            await unit(edge.db, lambda: self.last_words(edge))
        assert edge.told[-1] in {"unit: rolled_back", "unit: unknown"}
        await edge.works()

    async def test_statement_raises(self, edge: Edge) -> None:
        with pytest.raises(Exception) as caught:
            async with transactional():
                await self.last_words(edge)
                await count(edge.db)
        assert not isinstance(caught.value, UnexpectedRollbackError)
        assert edge.told == rolled_back("unit")
        await edge.works()

    async def test_swallowed_error_leaves_with_the_end(self, edge: Edge) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                await self.last_words(edge)
                with swallowed() as first:
                    await count(edge.db)
        assert caught.value.__cause__ is first.error
        assert edge.told == rolled_back("unit")
        await edge.works()


@pytest.mark.parametrize("unit", [function, atomic_alone, nested])
@pytest.mark.parametrize("past", [dbapi_cursor, run_async, raw_execute, raw_fetch])
async def test_error_past_sqlalchemy_is_no_success(edge: Edge, unit: Unit, past: Mistake) -> None:
    """SQLAlchemy's adapter sends no COMMIT once it has met a connection that is closed."""

    async def body() -> None:
        await edge.write_and_watch()
        await edge.kill()
        with swallowed():
            await past(await db_session(edge.db))

    with pytest.raises((UnexpectedRollbackError, CommitOutcomeUnknownError)):
        await unit(edge.db, body)
    assert edge.told[-1] in {"unit: rolled_back", "unit: unknown"}
    await edge.works()


async def test_server_that_ends_an_idle_transaction_is_no_success(edge: Edge) -> None:
    """``idle_in_transaction_session_timeout``: nobody killed it by hand."""
    pid = 0
    with pytest.raises((UnexpectedRollbackError, CommitOutcomeUnknownError)):
        async with transactional():
            await edge.write_and_watch()
            pid = await edge.backend()
            await ask(
                edge.db, "SELECT set_config('idle_in_transaction_session_timeout', '20', true)"
            )
            while await edge.backends():
                pass
    assert edge.told[-1] in {"unit: rolled_back", "unit: unknown"}
    await edge.works(other=pid)


async def test_rollback_that_a_busy_driver_refuses_discards_the_connection(edge: Edge) -> None:
    """Scenario: the driver is at work in another task when an exception leaves the unit.
    Outcome: it can't send ROLLBACK; the exception leaves, and the connection is given up."""
    waits = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'advisory'"
    await edge.judge.fetch("SELECT pg_advisory_lock(7)")
    with pytest.raises(Boom) as caught:
        async with transactional():
            await edge.write_and_watch()
            pid = await edge.backend()
            raw = await driver(await db_session(edge.db))
            work = asyncio.ensure_future(raw.execute("SELECT pg_advisory_xact_lock(7)"))
            while not await edge.judge.fetch(waits, pid):
                await asyncio.sleep(0)
            raise Boom
    try:
        assert "cleaning up failed too" in caught.value.__notes__[0]
        assert await asyncio.wait({work}, timeout=10) == ({work}, set())
        with swallowed():
            await work
    finally:
        await edge.judge.fetch("SELECT pg_advisory_unlock(7)")
    while pid in await edge.backends():
        await asyncio.sleep(0)
    assert edge.told == rolled_back("unit")
    await edge.works(other=pid)
