"""The connection is lost in the middle of COMMIT: nobody can tell, and txkit says so.

The wire loses the request (rolled back), or the answer (committed): for the client it
is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.conftest import PostgresJudge, new_postgres, opened
from tests.notes import Boom, write
from tests.postgres.edges import (
    EVERY_UNIT,
    Edge,
    Unit,
    atomic_alone,
    atomic_block,
    atomic_inside,
    block,
    edge_of,
    function,
)
from tests.server import Server
from tests.told import committed, unknown, watch
from txkit import (
    CommitOutcomeUnknownError,
    Database,
    PartialCommitError,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    transactional,
)


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server):
        async with transactional():
            await (await db_session(one.db)).connection()
        yield one


class Loss:
    """What is lost, and what the database holds afterwards."""

    def __init__(self, loses: str, rows: list[str]) -> None:
        self.loses = loses
        self.rows = rows


LOSSES = [Loss("request", []), Loss("answer", ["unit"])]


EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES, ids=["request", "answer"])


async def lose(edge: Edge, loss: Loss) -> None:
    """Do something whose COMMIT will be lost."""
    await edge.write_and_watch("unit")
    edge.wire.loses = loss.loses


async def settled(edge: Edge, pid: int) -> None:
    """Wait until the server has noticed that the client is gone."""
    while pid in await edge.backends():
        await asyncio.sleep(0)


@EVERY_LOSS
class TestLostOnTheWire:
    @EVERY_UNIT
    async def test_unit_that_ended_is_unknown(self, edge: Edge, loss: Loss, unit: Unit) -> None:
        pid = await edge.backend()
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            await unit(edge.db, lambda: lose(edge, loss))
        assert caught.value.database is edge.db
        assert isinstance(caught.value.__cause__, DBAPIError)
        assert edge.told == ["unit: before", *unknown("unit")]
        await settled(edge, pid)
        await edge.works(*loss.rows, other=pid)

    @pytest.mark.parametrize("unit", [function, block])
    async def test_boundary_is_named(self, edge: Edge, loss: Loss, unit: Unit) -> None:
        with pytest.raises(
            CommitOutcomeUnknownError, match="'unit' may be committed or rolled back"
        ) as caught:
            await unit(edge.db, lambda: lose(edge, loss))
        assert caught.value.function == "unit"

    @pytest.mark.parametrize("unit", [atomic_alone, atomic_block, atomic_inside])
    async def test_block_is_named(self, edge: Edge, loss: Loss, unit: Unit) -> None:
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            await unit(edge.db, lambda: lose(edge, loss))
        assert caught.value.function.startswith(("atomic block", "tests.boundary.faces"))

    async def test_block_that_was_swallowed_leaves_its_boundary_whole(
        self, edge: Edge, loss: Loss
    ) -> None:
        pid = await edge.backend()
        async with transactional():
            with pytest.raises(CommitOutcomeUnknownError):
                async with atomic(edge.db):
                    await lose(edge, loss)
            assert edge.told == ["unit: before", *unknown("unit")]
            await settled(edge, pid)
            edge.told.clear()
            await edge.write_and_watch("kept")
        assert edge.told == committed("unit")
        await edge.works(*loss.rows, "kept", other=pid)

    @pytest.mark.parametrize("by", ["function", "session", "run_sync", "begin"])
    async def test_commit_by_hand_is_unknown_and_the_unit_goes_on(
        self, edge: Edge, loss: Loss, by: str
    ) -> None:
        pid = await edge.backend()
        async with transactional(name="unit"):
            session = await db_session(edge.db)
            with pytest.raises(CommitOutcomeUnknownError) as caught:
                if by == "begin":
                    async with session.begin():
                        await lose(edge, loss)
                else:
                    await lose(edge, loss)
                    if by == "function":
                        await commit_db_session(edge.db)
                    elif by == "session":
                        await session.commit()
                    else:
                        await session.run_sync(lambda sync: sync.commit())
            assert "unit" in caught.value.function
            assert edge.told == ["unit: before", *unknown("unit")]
            await settled(edge, pid)
            edge.told.clear()
            await edge.write_and_watch("kept")
        assert edge.told == committed("unit")
        await edge.works(*loss.rows, "kept", other=pid)

    async def test_session_outside_any_context(self, edge: Edge, loss: Loss) -> None:
        pid = await edge.backend()
        with pytest.raises(CommitOutcomeUnknownError) as caught:
            async with new_non_ctx_atomic_session(edge.db) as session:
                session.add(Note(text="unit"))
                await session.flush()
                edge.wire.loses = loss.loses
        assert caught.value.function == "new_non_ctx_atomic_session()"
        await settled(edge, pid)
        await edge.works(*loss.rows, other=pid)

    async def test_users_exception_that_would_commit_leaves_with_a_note(
        self, edge: Edge, loss: Loss
    ) -> None:
        pid = await edge.backend()
        with pytest.raises(Boom) as caught:
            async with transactional(no_rollback_for=Boom):
                await lose(edge, loss)
                raise Boom
        [note] = caught.value.__notes__
        assert note.startswith("txkit: the commit failed: CommitOutcomeUnknownError")
        assert edge.told == ["unit: before", *unknown("unit")]
        await settled(edge, pid)
        await edge.works(*loss.rows, other=pid)

    async def test_joined_call_dooms_what_comes(self, edge: Edge, loss: Loss) -> None:
        @transactional
        async def service() -> None:
            await lose(edge, loss)
            await commit_db_session(edge.db)

        pid = await edge.backend()
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                with swallowed(CommitOutcomeUnknownError):
                    await service()
                await write(edge.db, "lost")
        await settled(edge, pid)
        await edge.works(*loss.rows, other=pid)


class TestSeveralDatabases:
    """One of two is lost in COMMIT; the other one is alive."""

    @pytest.fixture
    async def other(self, server: Server) -> AsyncIterator[tuple[Database, PostgresJudge]]:
        async for judge in new_postgres(server):
            async for db in opened(judge, name="other", pool_size=1, max_overflow=0):
                yield db, judge

    @EVERY_LOSS
    async def test_after_another_was_committed_it_is_partial(
        self, edge: Edge, other: tuple[Database, PostgresJudge], loss: Loss
    ) -> None:
        db, judge = other
        pid = await edge.backend()
        with pytest.raises(PartialCommitError) as caught:
            async with transactional():
                watch(edge.told, "unit")
                await write(db, "first")
                await write(edge.db, "unit")
                edge.wire.loses = loss.loses
        assert isinstance(caught.value.__cause__, CommitOutcomeUnknownError)
        assert (caught.value.committed, caught.value.failed) == ((db,), edge.db)
        assert edge.told == ["unit: before", *unknown("unit")]
        assert await judge.texts() == ["first"]
        await settled(edge, pid)
        await edge.works(*loss.rows, other=pid)

    @EVERY_LOSS
    async def test_before_another_that_one_is_rolled_back(
        self, edge: Edge, other: tuple[Database, PostgresJudge], loss: Loss
    ) -> None:
        db, judge = other
        pid = await edge.backend()
        with pytest.raises(CommitOutcomeUnknownError):
            async with transactional():
                watch(edge.told, "unit")
                await write(edge.db, "unit")
                await write(db, "second")
                edge.wire.loses = loss.loses
        assert edge.told == ["unit: before", *unknown("unit")]
        assert await judge.texts() == []
        await settled(edge, pid)
        await edge.works(*loss.rows, other=pid)
