"""The server's process is killed while COMMIT is at work: the outcome is unknown to its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest
from sqlalchemy.exc import DBAPIError

from tests.postgres.edges import (
    EVERY_UNIT,
    Edge,
    Unit,
    edge_of,
)
from tests.server import Server
from tests.told import committed, unknown
from txkit import (
    CommitOutcomeUnknownError,
    commit_db_session,
    db_session,
    transactional,
)


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server):
        async with transactional():
            await (await db_session(one.db)).connection()
        yield one


@pytest.fixture
async def sleepy(edge: Edge) -> Edge:
    """Its COMMIT stays at work until somebody unlocks, or kills it."""
    await edge.judge.connection.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.text = 'unit') EXECUTE FUNCTION wait()"
    )
    return edge


async def kill_in_commit(edge: Edge) -> None:
    """Wait until COMMIT waits, then kill it."""
    asks = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND wait_event = 'advisory'"
    while not (rows := await edge.judge.fetch(asks)):
        await asyncio.sleep(0)
    await edge.judge.fetch("SELECT pg_terminate_backend($1, 5000)", rows[0]["pid"])


async def during(edge: Edge, work: Awaitable[None]) -> None:
    """Let ``work`` run, and kill its COMMIT."""
    await edge.judge.fetch("SELECT pg_advisory_lock(7)")
    killer = asyncio.ensure_future(kill_in_commit(edge))
    try:
        await work
    finally:
        await killer
        await edge.judge.fetch("SELECT pg_advisory_unlock(7)")


class TestKilledInCommit:
    @EVERY_UNIT
    async def test_unit_that_ended_is_unknown(self, sleepy: Edge, unit: Unit) -> None:
        pid = await sleepy.backend()
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            await during(sleepy, unit(sleepy.db, lambda: sleepy.write_and_watch("unit")))
        assert caught.value.database is sleepy.db
        assert sleepy.told == ["unit: before", *unknown("unit")]
        await sleepy.works(other=pid)

    async def test_commit_by_hand(self, sleepy: Edge) -> None:
        pid = await sleepy.backend()
        async with transactional():
            await sleepy.write_and_watch("unit")
            with pytest.raises(CommitOutcomeUnknownError):
                await during(sleepy, commit_db_session(sleepy.db))
            assert sleepy.told == ["unit: before", *unknown("unit")]
            sleepy.told.clear()
            await sleepy.write_and_watch("kept")
        assert sleepy.told == committed("unit")
        await sleepy.works("kept", other=pid)

    async def test_cancelled_by_an_operator_is_a_refusal(self, sleepy: Edge) -> None:
        """``pg_cancel_backend``: COMMIT was answered, by an error."""

        async def cancel() -> None:
            asks = (
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'"
            )
            while not await sleepy.judge.fetch(asks):
                await asyncio.sleep(0)

        pid = await sleepy.backend()
        await sleepy.judge.fetch("SELECT pg_advisory_lock(7)")
        operator = asyncio.ensure_future(cancel())
        with pytest.raises(DBAPIError, match="canceling statement"):
            async with transactional():
                await sleepy.write_and_watch("unit")
        await operator
        await sleepy.judge.fetch("SELECT pg_advisory_unlock(7)")
        assert sleepy.told[-1] == "unit: rolled_back"
        await sleepy.works(same=pid)
