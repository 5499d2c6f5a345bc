"""Errors that SQLAlchemy never sees: those of the raw driver connection, and those that nobody sent."""

from __future__ import annotations

import pytest

from tests.boundary.mistakes import (
    MISSING,
    RAW,
    UNSENT_BY_ASYNCPG,
    Mistake,
    driver,
    raw_execute,
    raw_executemany,
    raw_fetch,
    run_async,
    stream,
    swallowed,
)
from tests.boundary.test_atomic import Note
from tests.conftest import PostgresJudge
from tests.notes import Boom, count, write
from tests.told import rolled_back, watch
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    before_commit,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)

UNSEEN = {**RAW, "stream": stream}
# The driver's connection tells of them, and the cursor that a stream fetches from.
TOLD = [raw_execute, raw_fetch, raw_executemany, run_async, stream]
EVERY_RAW = pytest.mark.parametrize("mistake", UNSEEN.values(), ids=list(UNSEEN))


async def swallow(db: Database, mistake: Mistake) -> None:
    await write(db, "lost")
    with swallowed():
        await mistake(await db_session(db))


class TestRawDriver:
    @pytest.mark.parametrize("mistake", TOLD)
    async def test_next_statement_is_refused_with_its_error(
        self, db: Database, pg: PostgresJudge, mistake: Mistake
    ) -> None:
        with pytest.raises(Boom):
            async with transactional(no_rollback_for=Boom):
                await write(db, "lost")
                with swallowed() as first:
                    await mistake(await db_session(db))
                with pytest.raises(UnexpectedRollbackError) as caught:
                    await write(db, "never sent")
                assert caught.value.__cause__ is first.error
                raise Boom
        assert await pg.texts() == []

    @EVERY_RAW
    async def test_end_raises(self, db: Database, pg: PostgresJudge, mistake: Mistake) -> None:
        told: list[str] = []
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                watch(told, "unit")
                await write(db, "lost")
                with swallowed() as first:
                    await mistake(await db_session(db))
        assert caught.value.function == "unit"
        if mistake in TOLD:
            assert caught.value.__cause__ is first.error
            assert caught.value.culprit == "unit"
        assert await pg.texts() == []
        assert told[-2:] == rolled_back("unit")
        await transactional(write)(db, "next")
        assert await pg.texts() == ["next"]

    @EVERY_RAW
    async def test_next_statement_raises(
        self, db: Database, pg: PostgresJudge, mistake: Mistake
    ) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await swallow(db, mistake)
                with pytest.raises(UnexpectedRollbackError):
                    await count(db)
        assert await pg.texts() == []

    @EVERY_RAW
    async def test_atomic_block_raises_and_its_caller_goes_on(
        self, db: Database, pg: PostgresJudge, mistake: Mistake
    ) -> None:
        async with transactional():
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(db):
                    await swallow(db, mistake)
            await write(db, "kept")
        assert await pg.texts() == ["kept"]

    @EVERY_RAW
    @pytest.mark.parametrize("inner", ["savepoint", "nested", "begin_nested"])
    async def test_savepoint_raises_and_undoes_it(
        self, db: Database, pg: PostgresJudge, mistake: Mistake, inner: str
    ) -> None:
        """Scenario: the error is swallowed inside, so that RELEASE is the first to meet it.
        Outcome: rolled back to the savepoint, and what is around it commits."""
        async with atomic(db) as session:
            await write(db, "kept")
            with pytest.raises(UnexpectedRollbackError):
                if inner == "nested":
                    await transactional(propagation="nested")(swallow)(db, mistake)
                else:
                    async with atomic(db) if inner == "savepoint" else session.begin_nested():
                        await swallow(db, mistake)
            await write(db, "kept too")
        assert await pg.texts() == ["kept", "kept too"]

    @EVERY_RAW
    async def test_savepoint_that_it_leaves_undoes_it(
        self, db: Database, pg: PostgresJudge, mistake: Mistake
    ) -> None:
        async with atomic(db) as session:
            await write(db, "kept")
            for block in (atomic(db), session.begin_nested()):
                with swallowed():
                    async with block:
                        await write(db, "lost")
                        await mistake(session)
            await write(db, "kept too")
        assert await pg.texts() == ["kept", "kept too"]

    async def test_savepoint_of_the_drivers_own_undoes_it(
        self, db: Database, pg: PostgresJudge
    ) -> None:
        async with transactional():
            await write(db, "kept")
            raw = await driver(await db_session(db))
            with swallowed():
                async with raw.transaction():
                    await raw.execute("INSERT INTO note (text) VALUES ('lost')")
                    await raw.execute(MISSING)
            await write(db, "kept too")
        assert await pg.texts() == ["kept", "kept too"]

    async def test_joined_call_dooms_what_it_joined(self, db: Database, pg: PostgresJudge) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await transactional(swallow)(db, RAW["raw_execute"])
        assert await pg.texts() == []

    async def test_hook_dooms_its_unit(self, db: Database, pg: PostgresJudge) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(db, "lost")
                before_commit(lambda: swallow(db, RAW["raw_execute"]))
        assert await pg.texts() == []

    @pytest.mark.parametrize("by", ["function", "session", "begin"])
    async def test_commit_by_hand_raises_and_it_is_over(
        self, db: Database, pg: PostgresJudge, by: str
    ) -> None:
        """COMMIT was sent, and answered by ROLLBACK: the next statement begins anew."""
        async with transactional():
            session = await db_session(db)
            with pytest.raises(UnexpectedRollbackError):
                if by == "begin":
                    async with session.begin():
                        await swallow(db, RAW["raw_execute"])
                else:
                    await swallow(db, RAW["raw_execute"])
                    await (commit_db_session(db) if by == "function" else session.commit())
            await rollback_db_session(db)
            await write(db, "kept")
        assert await pg.texts() == ["kept"]

    async def test_session_outside_any_context(self, db: Database, pg: PostgresJudge) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with new_non_ctx_atomic_session(db) as session:
                session.add(Note(text="lost"))
                with swallowed():
                    await RAW["raw_execute"](session)
        async with new_non_ctx_session(db) as session:
            session.add(Note(text="lost"))
            with swallowed():
                await RAW["raw_execute"](session)
            with pytest.raises(UnexpectedRollbackError):
                await session.commit()
        assert await pg.texts() == []

    async def test_own_request_returns_all_the_same(self, db: Database, pg: PostgresJudge) -> None:
        async with transactional():
            await swallow(db, RAW["raw_execute"])
            set_rollback_only()
        assert await pg.texts() == []

    async def test_rule_can_not_commit_it(self, db: Database, pg: PostgresJudge) -> None:
        """The user's exception leaves, with the truth as a note."""
        with pytest.raises(Boom) as caught:
            async with transactional(no_rollback_for=Boom):
                await swallow(db, RAW["raw_execute"])
                raise Boom
        assert "rolled back although the rules" in "".join(caught.value.__notes__)
        assert await pg.texts() == []


class TestNeverAsked:
    """asyncpg refuses an argument of the wrong type by itself; the transaction is healthy."""

    @pytest.mark.parametrize("mistake", UNSENT_BY_ASYNCPG.values(), ids=list(UNSENT_BY_ASYNCPG))
    async def test_dooms_nothing(self, db: Database, pg: PostgresJudge, mistake: Mistake) -> None:
        @transactional
        async def service() -> None:
            with swallowed():
                await mistake(await db_session(db))

        async with transactional():
            await write(db, "kept")
            await service()
            async with atomic(db, current_transaction="savepoint"):
                await service()
                await write(db, "kept too")
        assert await pg.texts() == ["kept", "kept too"]

    async def test_in_a_flush_dooms_what_the_orm_has_rolled_back(
        self, db: Database, pg: PostgresJudge
    ) -> None:
        """The ORM rolls the transaction back for any failed flush."""
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(db, "lost")
                session = await db_session(db)
                session.add(Note(text=5))  # type: ignore[arg-type]
                with swallowed():
                    await session.flush()
        assert await pg.texts() == []


async def test_commit_sent_as_text_tells_the_truth(db: Database, pg: PostgresJudge) -> None:
    """Past SQLAlchemy's own commit: the raw driver is asked to COMMIT, after an error on it."""
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            await write(db, "lost")
            raw = await driver(await db_session(db))
            with swallowed():
                await raw.execute(MISSING)
            await raw.execute("COMMIT")
    assert await pg.texts() == []
