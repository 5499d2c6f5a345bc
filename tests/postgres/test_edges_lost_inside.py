"""The connection dies inside a savepoint, or before an end by hand. Always on a pool of one."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.boundary.mistakes import statement, swallowed
from tests.notes import Boom, count, write
from tests.postgres.edges import LOST, Edge
from tests.told import committed, rolled_back
from txkit import (
    CommitOutcomeUnknownError,
    Database,
    UnexpectedRollbackError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    transactional,
)


@pytest.mark.parametrize("kind", ["atomic", "nested", "begin_nested"])
class TestSavepoint:
    """With the connection the whole transaction is lost, and not just the savepoint."""

    async def test_exception_is_contained_and_the_rest_is_doomed(
        self, edge: Edge, kind: str
    ) -> None:
        with pytest.raises((UnexpectedRollbackError, *LOST)):
            async with transactional():
                await edge.write_and_watch()
                await self.fail_in(edge, kind)
                with pytest.raises((UnexpectedRollbackError, *LOST)):
                    await write(edge.db, "refused")
        assert edge.told[-2:] == rolled_back("unit")
        await edge.works()

    async def test_statement_in_it_dooms_all(self, edge: Edge, kind: str) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                await edge.write_and_watch()
                with swallowed(DBAPIError) as first:
                    async with await self.savepoint(edge.db, kind):
                        await write(edge.db, "lost")
                        await edge.kill_seen()
                        await count(edge.db)
                with pytest.raises(UnexpectedRollbackError) as refused:
                    await write(edge.db, "refused")
                assert refused.value.__cause__ is first.error
        assert caught.value.function == "unit"
        assert caught.value.__cause__ is first.error
        assert edge.told == rolled_back("unit")
        await edge.works()

    async def test_release_of_it_is_no_success(self, edge: Edge, kind: str) -> None:
        with pytest.raises((UnexpectedRollbackError, *LOST)):
            async with transactional():
                await edge.write_and_watch()
                async with await self.savepoint(edge.db, kind):
                    await write(edge.db, "lost")
                    await edge.kill()
        assert edge.told == rolled_back("unit")
        await edge.works()

    async def test_rollback_by_hand_mends(self, edge: Edge, kind: str) -> None:
        async with transactional():
            await write(edge.db, "lost")
            await self.fail_in(edge, kind)
            with RAISES_OR_NOT:
                await rollback_db_session(edge.db)
            await edge.write_and_watch("kept")
        assert edge.told == committed("unit")
        await edge.works("kept")

    async def fail_in(self, edge: Edge, kind: str) -> None:
        """Let Boom leave it; SQLAlchemy's own block raises what its rollback met instead."""
        with pytest.raises(LOST if kind == "begin_nested" else Boom):
            async with await self.savepoint(edge.db, kind):
                await write(edge.db, "lost")
                await edge.kill()
                raise Boom

    async def savepoint(self, db: Database, kind: str):
        if kind == "begin_nested":
            return (await db_session(db)).begin_nested()
        if kind == "nested":
            return transactional(propagation="nested")
        return atomic(db, current_transaction="savepoint")


RAISES_OR_NOT = contextlib.suppress(*LOST)
"""A rollback on a connection that is gone."""


async def by_function(db: Database) -> None:
    await rollback_db_session(db)


async def by_close(db: Database) -> None:
    await close_db_session(db)


async def by_session(db: Database) -> None:
    await (await db_session(db)).rollback()


async def by_session_close(db: Database) -> None:
    await (await db_session(db)).close()


async def by_invalidate(db: Database) -> None:
    await (await db_session(db)).invalidate()


async def by_reset(db: Database) -> None:
    await (await db_session(db)).reset()


ROLLBACKS = [by_function, by_close, by_session, by_session_close, by_invalidate, by_reset]


@pytest.mark.parametrize("noticed", [False, True])
class TestByHand:
    @pytest.mark.parametrize("roll_back", ROLLBACKS)
    async def test_rollback_mends_even_where_it_raises(
        self, edge: Edge, roll_back: Callable[[Database], Awaitable[None]], noticed: bool
    ) -> None:
        async with transactional():
            await edge.write_and_watch()
            await (edge.kill_seen() if noticed else edge.kill())
            with RAISES_OR_NOT:
                await roll_back(edge.db)
            assert edge.told == rolled_back("unit")
            edge.told.clear()
            await edge.write_and_watch("kept")
        assert edge.told == committed("unit")
        await edge.works("kept")

    @pytest.mark.parametrize("by", ["function", "session", "begin"])
    async def test_commit_is_no_success_and_the_next_statement_begins_anew(
        self, edge: Edge, by: str, noticed: bool
    ) -> None:
        """Whether COMMIT went out before the news came in is chance, where nobody waited for it."""
        loses = edge.kill_seen if noticed else edge.kill
        kinds = (UnexpectedRollbackError, *([] if noticed else [CommitOutcomeUnknownError]))
        async with transactional():
            session = await db_session(edge.db)
            with pytest.raises(kinds):
                if by == "begin":
                    async with session.begin():
                        await edge.write_and_watch()
                        await loses()
                else:
                    await edge.write_and_watch()
                    await loses()
                    await (commit_db_session(edge.db) if by == "function" else session.commit())
            assert await edge.judge.texts() == []
            assert edge.told[-1] in {"unit: rolled_back", "unit: unknown"}
            edge.told.clear()
            await edge.write_and_watch("kept")
        assert edge.told == committed("unit")
        await edge.works("kept")


async def test_error_before_the_loss_stays_the_first(edge: Edge) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional():
            await edge.write_and_watch()
            connection = await (await db_session(edge.db)).connection()
            with swallowed() as first:
                await statement(await db_session(edge.db))
            await edge.kill_seen()
            with swallowed(DBAPIError):
                await connection.execute(text("SELECT 1"))
    assert caught.value.__cause__ is first.error
    assert edge.told == rolled_back("unit")
    await edge.works()
