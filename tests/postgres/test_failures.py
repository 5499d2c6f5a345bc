"""What fails while something else is being ended: nothing half, nothing leaked, nothing hidden."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from tests.boundary.test_atomic import Note
from tests.conftest import PostgresJudge, opened
from tests.notes import Boom, write
from tests.postgres.watching import kill_seen
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    db_session,
    in_transaction,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)


async def backend(db: Database) -> int:
    session = await db_session(db)
    return (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()


async def kill(pg: PostgresJudge, pid: int) -> None:
    await pg.fetch("SELECT pg_terminate_backend($1, 5000)", pid)


class TestSeveralDatabases:
    async def test_what_the_culprit_used_outside_its_block_is_doomed_too(
        self, db: Database, db2: Database, pg2: PostgresJudge
    ) -> None:
        """Scenario: a joined function fails inside atomic(db), having written on db2.
        Outcome: the block is contained, but db2 holds no half of it."""

        @transactional
        async def culprit() -> None:
            await write(db2, "half")
            raise Boom

        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                with pytest.raises(Boom):
                    async with atomic(db):
                        await culprit()
        assert await pg2.texts() == []

    async def test_what_the_culprit_did_not_use_is_not_doomed(
        self, db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
    ) -> None:
        @transactional
        async def culprit() -> None:
            await write(db, "lost")
            raise Boom

        async with transactional():
            await write(db2, "kept")
            with pytest.raises(Boom):
                async with atomic(db):
                    await culprit()
            await write(db2, "kept too")
        assert (await pg.texts(), await pg2.texts()) == ([], ["kept", "kept too"])

    async def test_database_that_had_no_transaction_is_usable_after_mending(
        self, db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
    ) -> None:
        @transactional
        async def culprit() -> None:
            await write(db, "lost")
            raise Boom

        async with transactional():
            with pytest.raises(Boom):
                await culprit()
            await rollback_db_session(db)
            await write(db, "kept")
            await write(db2, "kept")
        assert (await pg.texts(), await pg2.texts()) == (["kept"], ["kept"])

    @pytest.mark.parametrize("raises", [True, False])
    @pytest.mark.parametrize("killed", ["first", "second"])
    async def test_block_over_two_is_never_half(
        self,
        db: Database,
        db2: Database,
        pg: PostgresJudge,
        pg2: PostgresJudge,
        killed: str,
        raises: bool,
    ) -> None:
        """Scenario: one backend dies in a block of two savepoints, the user recovers that one.
        Outcome: nothing of the block is committed on the other; what was before is, if it can."""
        victim, judge = (db, pg) if killed == "first" else (db2, pg2)

        async def unit() -> None:
            async with transactional():
                await write(db, "before")
                await write(db2, "before")
                with pytest.raises(Exception):  # noqa: B017 - Boom, or what the server said
                    async with atomic(db, db2, current_transaction="savepoint"):
                        await write(db, "half")
                        await write(db2, "half")
                        await kill_seen(victim, judge)
                        if raises:
                            raise Boom
                await rollback_db_session(victim)

        try:
            await unit()
        except UnexpectedRollbackError:
            assert not raises
        assert "half" not in await pg.texts() + await pg2.texts()

    async def test_idle_session_is_closed_though_the_rollback_of_another_failed(
        self, db: Database, db2: Database, pg: PostgresJudge
    ) -> None:
        with pytest.raises(Boom):
            async with transactional():
                await write(db, "lost")
                other = await db_session(db2)
                other.add(Note(text="x"))
                await kill(pg, await backend(db))
                raise Boom
        assert not other.in_transaction()
        assert len(other.new) == 0


class Listening(Session):
    """A user's session that listens to itself, which ties its events to its first class."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        event.listen(self, "after_flush", lambda *_: None)


async def test_session_with_listeners_of_its_own_is_guarded_like_any_other(
    pg: PostgresJudge,
) -> None:
    def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
        return async_sessionmaker(engine, sync_session_class=Listening)

    @transactional
    async def culprit() -> None:
        raise Boom

    async for db in opened(pg, session_factory=sessions):
        with pytest.raises(Boom):
            async with transactional():
                await write(db, "lost")
                raise Boom
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                session = await db_session(db)
                async with session.begin():
                    await write(db, "doomed")
                    with pytest.raises(Boom):
                        await culprit()
    assert await pg.texts() == []


async def test_engine_wide_isolation_level_is_the_default(pg: PostgresJudge) -> None:
    async for db in opened(pg, isolation_level="REPEATABLE READ"):
        async with transactional():
            await (await db_session(db)).execute(text("SELECT 1"))
            async with atomic(db):
                await write(db, "a")
    assert await pg.texts() == ["a"]


class TestClosedCoroutine:
    """Its connections end at once, and nothing else leaves but GeneratorExit."""

    async def test_in_nested_blocks(self, db: Database, pg: PostgresJudge) -> None:
        inside = asyncio.Event()

        @transactional
        async def unit() -> None:
            async with atomic(db):
                await write(db, "x")
                async with atomic(db):
                    await write(db, "y")
                    inside.set()
                    await asyncio.Event().wait()

        await self.closed(unit(), inside, pg)
        assert await pg.texts() == []

    @pytest.mark.parametrize("block", [new_non_ctx_session, new_non_ctx_atomic_session])
    async def test_in_a_session_outside_any_context(
        self, db: Database, pg: PostgresJudge, block
    ) -> None:
        inside = asyncio.Event()

        async def unit() -> None:
            async with block(db) as session:
                await session.execute(text("SELECT 1"))
                inside.set()
                await asyncio.Event().wait()

        await self.closed(unit(), inside, pg)

    async def closed(self, coroutine, inside: asyncio.Event, pg: PostgresJudge) -> None:
        """Close it from a task that stands in a context of its own, as the collector may."""
        task = asyncio.ensure_future(coroutine)
        await inside.wait()
        async with transactional():
            coroutine.close()
            assert in_transaction() is False
            set_rollback_only()
        while await pg.backends():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(RuntimeError, match="already awaited"):
            await task
