"""Hooks, judged by the server: what is committed and idle when they run, and what a COMMIT said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DBAPIError

from tests.conftest import PostgresJudge, opened
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked, hold_commits, release_commits
from tests.postgres.test_several_databases import refuse_commits
from tests.told import rolled_back, unknown, watch
from tests.ways import UNITS, Unit, each
from txkit import (
    CommitOutcomeUnknownError,
    Database,
    UnexpectedRollbackError,
    after_commit,
    after_completion,
    db_session,
    transactional,
)


@pytest.fixture
async def single(pg: PostgresJudge) -> AsyncIterator[Database]:
    """One connection: a unit after a failure gets it, or nobody does."""
    async for one in opened(pg, name="single", pool_size=1, max_overflow=0, pool_timeout=5):
        yield one


async def next_unit_works(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await write(db, "next")
    assert await pg.texts() == ["next"]


async def raw_error(db: Database) -> None:
    """Break the transaction on the driver connection, where SQLAlchemy sees nothing."""
    connection = await (await (await db_session(db)).connection()).get_raw_connection()
    driver = connection.driver_connection
    assert driver is not None
    with pytest.raises(Exception, match="division by zero"):
        await driver.execute("SELECT 1/0")


@each("unit", UNITS)
async def test_hook_sees_its_work_committed_and_its_connection_idle(
    db: Database, pg: PostgresJudge, unit: Unit
) -> None:
    seen: list[object] = []

    async def hook() -> None:
        seen.append(await pg.texts())
        seen.extend(state for _, state in await pg.backends())

    async with unit(db):
        await write(db, "kept")
        after_commit(hook)
    assert seen == [["kept"], "idle"]


@each("unit", UNITS)
class TestCommitThatFails:
    async def test_refused_by_a_deferred_constraint_tells_of_a_rollback(
        self, single: Database, pg: PostgresJudge, unit: Unit
    ) -> None:
        told: list[str] = []
        await refuse_commits(pg)
        with pytest.raises(DBAPIError, match="refused") as caught:
            async with unit(single):
                await write(single, "lost")
                watch(told, "unit")
        assert told == ["unit: before", *rolled_back("unit")]
        assert not hasattr(caught.value, "__notes__")
        await pg.fetch("DROP TRIGGER refuse ON note")
        await next_unit_works(single, pg)

    async def test_answered_by_a_rollback_tells_of_a_rollback(
        self, single: Database, pg: PostgresJudge, unit: Unit
    ) -> None:
        """SQLAlchemy's own after_commit event would call that a commit."""
        told: list[str] = []
        with pytest.raises(UnexpectedRollbackError):
            async with unit(single):
                await write(single, "lost")
                watch(told, "unit")
                await raw_error(single)
        assert told[-2:] == rolled_back("unit")
        await next_unit_works(single, pg)

    async def test_lost_in_flight_tells_that_nobody_knows(
        self, single: Database, pg: PostgresJudge, unit: Unit
    ) -> None:
        """Scenario: the backend is killed while it commits."""
        told: list[str] = []
        await hold_commits(pg)

        async def run() -> None:
            async with unit(single):
                await write(single, "lost")
                watch(told, "unit")

        task = asyncio.create_task(run())
        await blocked(pg, "COMMIT")
        [(pid, _)] = await pg.backends()
        await pg.fetch("SELECT pg_terminate_backend($1, 5000)", pid)
        with pytest.raises((CommitOutcomeUnknownError, DBAPIError)):
            await task
        assert told == ["unit: before", *unknown("unit")]
        await release_commits(pg)
        await next_unit_works(single, pg)


class TestConnectionThatFails:
    @pytest.mark.parametrize("rules", ["roll back", "commit"])
    async def test_killed_in_the_body_tells_of_a_rollback(
        self, single: Database, pg: PostgresJudge, rules: str
    ) -> None:
        told: list[str] = []

        @transactional(no_rollback_for=Boom if rules == "commit" else ())
        async def unit() -> None:
            await write(single, "lost")
            watch(told, "unit")
            [(pid, _)] = await pg.backends()
            await pg.fetch("SELECT pg_terminate_backend($1, 5000)", pid)
            raise Boom

        with pytest.raises(Boom):
            await unit()
        assert told[-2:] == rolled_back("unit")
        await next_unit_works(single, pg)

    async def test_killed_before_a_good_end_tells_of_a_rollback(
        self, single: Database, pg: PostgresJudge
    ) -> None:
        told: list[str] = []
        with pytest.raises((UnexpectedRollbackError, CommitOutcomeUnknownError)) as caught:
            async with transactional():
                await write(single, "lost")
                watch(told, "unit")
                [(pid, _)] = await pg.backends()
                await pg.fetch("SELECT pg_terminate_backend($1, 5000)", pid)
        is_known = isinstance(caught.value, UnexpectedRollbackError)
        assert told == ["unit: before", *(rolled_back("unit") if is_known else unknown("unit"))]
        await next_unit_works(single, pg)

    async def test_none_to_be_had_tells_of_a_rollback(self) -> None:
        told: list[str] = []
        nowhere = Database("postgresql://127.0.0.1:1/nowhere", connect_args={"ssl": False})
        with pytest.raises(OSError):
            async with transactional():
                watch(told, "unit")
                await write(nowhere, "never")
        assert told == rolled_back("unit")
        await nowhere.close()


async def test_hooks_of_siblings_follow_their_own_units(db: Database, pg: PostgresJudge) -> None:
    """Scenario: a TaskGroup of four units; one fails while the others wait for it.
    Outcome: those that were cancelled and the one that failed tell of a rollback, before the
    group is left; the one that had ended is committed."""
    told: dict[str, list[str]] = {"done": [], "fails": [], "waits": [], "waits too": []}
    ready = asyncio.Barrier(3)

    @transactional
    async def unit(name: str) -> None:
        await write(db, name)
        after_completion(told[name].append)
        if name == "done":
            return
        await ready.wait()
        if name == "fails":
            raise Boom
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            await group.create_task(unit("done"))
            for name in ("fails", "waits", "waits too"):
                group.create_task(unit(name))
    assert [type(error) for error in caught.value.exceptions] == [Boom]
    assert told.pop("done") == ["committed"]
    assert all(outcome == ["rolled_back"] for outcome in told.values())
    assert await pg.texts() == ["done"]


async def test_hooks_that_joined_siblings_register_belong_to_the_unit(
    db: Database, pg: PostgresJudge
) -> None:
    """One after the other: a context has one user at a time."""
    told: list[str] = []

    @transactional
    async def joined(name: str) -> None:
        await write(db, name)
        after_commit(lambda: told.append(name))

    async with transactional():
        async with asyncio.TaskGroup() as group:
            await group.create_task(joined("first"))
            await group.create_task(joined("second"))
        assert told == []
    assert told == ["first", "second"]
    assert await pg.texts() == ["first", "second"]
