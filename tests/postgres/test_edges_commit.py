"""COMMIT is refused, by a deferred constraint or for serialization: that error leaves unchanged.

Nothing of the unit is in the database, its hooks are told so, and the connection is
as good as before. Always on a pool of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, TypeAlias

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.notes import Boom, write
from tests.postgres.edges import EVERY_UNIT, Edge, Unit, edge_of
from tests.server import Server
from tests.told import committed, rolled_back, watch
from txkit import (
    atomic,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    transactional,
)


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server):
        await one.judge.connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE foreign_key_violation; END $$;"
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW WHEN (NEW.text = 'refused') EXECUTE FUNCTION refuse()"
        )
        async with transactional():
            await (await db_session(one.db)).connection()
        yield one


async def break_constraint(edge: Edge, session: AsyncSession) -> None:
    """Write a row that a constraint refuses at COMMIT."""
    await session.execute(text("INSERT INTO note (text) VALUES ('refused')"))


async def be_overtaken(edge: Edge, session: AsyncSession) -> None:
    """Read what a rival writes, who has read what is written here, and commits first."""
    async with edge.judge.connection.transaction(isolation="serializable"):
        await edge.judge.fetch("SELECT * FROM note")
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        await session.execute(text("SELECT * FROM note"))
        await session.execute(text("INSERT INTO note (text) VALUES ('overtaken')"))
        await edge.judge.fetch("INSERT INTO note (text) VALUES ('rival')")


class Refusal(NamedTuple):
    provoke: Callable[[Edge, AsyncSession], Awaitable[None]]
    sqlstate: str
    rows: list[str]


REFUSALS = {
    "deferred constraint": Refusal(break_constraint, "23503", []),
    "serialization": Refusal(be_overtaken, "40001", ["rival"]),
}
EVERY_REFUSAL = pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))


def sqlstate(error: BaseException) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


async def provoke(edge: Edge, refusal: Refusal) -> None:
    """Do in the context what its COMMIT will refuse."""
    await refusal.provoke(edge, await db_session(edge.db))
    watch(edge.told, "unit")


@EVERY_REFUSAL
class TestBoundary:
    @EVERY_UNIT
    async def test_error_leaves_and_the_connection_is_as_before(
        self, edge: Edge, refusal: Refusal, unit: Unit
    ) -> None:
        pid = await edge.backend()
        with pytest.raises(DBAPIError) as caught:
            await unit(edge.db, lambda: provoke(edge, refusal))
        assert sqlstate(caught.value) == refusal.sqlstate
        assert not getattr(caught.value, "__notes__", [])
        assert edge.told == ["unit: before", *rolled_back("unit")]
        await edge.works(*refusal.rows, same=pid)

    async def test_atomic_block_fails_alone(self, edge: Edge, refusal: Refusal) -> None:
        pid = await edge.backend()
        async with transactional():
            with pytest.raises(DBAPIError) as caught:
                async with atomic(edge.db):
                    await provoke(edge, refusal)
            assert sqlstate(caught.value) == refusal.sqlstate
            assert edge.told == ["unit: before", *rolled_back("unit")]
            await write(edge.db, "kept")
        await edge.works(*refusal.rows, "kept", same=pid)

    @pytest.mark.parametrize("mode", ["append", "commit"])
    async def test_block_that_commits_what_was_open(
        self, edge: Edge, refusal: Refusal, mode: str
    ) -> None:
        """With it (``append``), or first (``commit``), in which case the block is not entered."""
        pid = await edge.backend()
        async with transactional():
            await provoke(edge, refusal)
            with pytest.raises(DBAPIError) as caught:
                async with atomic(edge.db, current_transaction=mode):
                    assert mode == "append"
            assert sqlstate(caught.value) == refusal.sqlstate
            assert edge.told[-2:] == rolled_back("unit")
            await write(edge.db, "kept")
        await edge.works(*refusal.rows, "kept", same=pid)

    async def test_users_exception_that_would_commit_leaves_with_a_note(
        self, edge: Edge, refusal: Refusal
    ) -> None:
        pid = await edge.backend()
        with pytest.raises(Boom) as caught:
            async with transactional(no_rollback_for=Boom):
                await provoke(edge, refusal)
                raise Boom
        [note] = caught.value.__notes__
        assert note.startswith("txkit: the commit failed: ")
        assert edge.told == ["unit: before", *rolled_back("unit")]
        await edge.works(*refusal.rows, same=pid)

    async def test_early_commit_before_it_stays(self, edge: Edge, refusal: Refusal) -> None:
        early: list[str] = []
        pid = await edge.backend()
        with pytest.raises(DBAPIError):
            async with transactional():
                await write(edge.db, "kept")
                watch(early, "early")
                await commit_db_session(edge.db)
                await provoke(edge, refusal)
        assert early == committed("early")
        assert edge.told == ["unit: before", *rolled_back("unit")]
        await edge.works("kept", *refusal.rows, same=pid)


Commit: TypeAlias = Callable[[Edge], Awaitable[None]]


async def by_function(edge: Edge) -> None:
    await commit_db_session(edge.db)


async def by_session(edge: Edge) -> None:
    await (await db_session(edge.db)).commit()


async def by_run_sync(edge: Edge) -> None:
    await (await db_session(edge.db)).run_sync(lambda sync: sync.commit())


@EVERY_REFUSAL
class TestByHand:
    @pytest.mark.parametrize("commit", [by_function, by_session, by_run_sync])
    @pytest.mark.parametrize("rolls_back", [False, True])
    async def test_refused_commit_is_over_and_the_unit_goes_on(
        self, edge: Edge, refusal: Refusal, commit: Commit, rolls_back: bool
    ) -> None:
        """The error was told to whom it concerns; a rollback by hand after it is allowed."""
        pid = await edge.backend()
        async with transactional():
            await provoke(edge, refusal)
            with pytest.raises(DBAPIError) as caught:
                await commit(edge)
            assert sqlstate(caught.value) == refusal.sqlstate
            if rolls_back:
                await rollback_db_session(edge.db)
            assert edge.told == ["unit: before", *rolled_back("unit")]
            edge.told.clear()
            await edge.write_and_watch("kept")
        assert edge.told == committed("unit")
        await edge.works(*refusal.rows, "kept", same=pid)

    async def test_begin_block(self, edge: Edge, refusal: Refusal) -> None:
        pid = await edge.backend()
        async with transactional():
            session = await db_session(edge.db)
            with pytest.raises(DBAPIError) as caught:
                async with session.begin():
                    await provoke(edge, refusal)
            assert sqlstate(caught.value) == refusal.sqlstate
            assert edge.told == ["unit: before", *rolled_back("unit")]
            await write(edge.db, "kept")
        await edge.works(*refusal.rows, "kept", same=pid)

    async def test_joined_call_that_it_left_dooms_what_comes(
        self, edge: Edge, refusal: Refusal
    ) -> None:
        """What failed is over, but the call has failed, and the unit with it."""
        pid = await edge.backend()

        @transactional
        async def service() -> None:
            await provoke(edge, refusal)
            await commit_db_session(edge.db)

        with pytest.raises(Exception, match="can only be rolled back|was rolled back"):
            async with transactional():
                with swallowed(DBAPIError):
                    await service()
                await write(edge.db, "lost")
        await edge.works(*refusal.rows, same=pid)


@EVERY_REFUSAL
class TestOwnSession:
    async def test_atomic_one(self, edge: Edge, refusal: Refusal) -> None:
        pid = await edge.backend()
        with pytest.raises(DBAPIError) as caught:
            async with new_non_ctx_atomic_session(edge.db) as session:
                await refusal.provoke(edge, session)
        assert sqlstate(caught.value) == refusal.sqlstate
        await edge.works(*refusal.rows, same=pid)

    async def test_users_commit(self, edge: Edge, refusal: Refusal) -> None:
        pid = await edge.backend()
        async with new_non_ctx_session(edge.db) as session:
            await refusal.provoke(edge, session)
            with pytest.raises(DBAPIError) as caught:
                await session.commit()
            assert sqlstate(caught.value) == refusal.sqlstate
            await session.rollback()
            session.add(Note(text="kept"))
            await session.commit()
        await edge.works(*refusal.rows, "kept", same=pid)
