"""A database error swallowed before a commit by hand, and in sessions outside any context. On both backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.mistakes import ANY, Mistake, autoflush, executemany, statement, swallowed
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import write
from tests.told import committed, rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    transactional,
)

SOME_MISTAKES = pytest.mark.parametrize("mistake", [statement, executemany, autoflush])
EVERY_MISTAKE = pytest.mark.parametrize("mistake", ANY.values(), ids=list(ANY))


async def make(place: Place, mistake: Mistake) -> None:
    """Write, then make the mistake and let it leave."""
    await write(place.db, "lost")
    await mistake(await db_session(place.db))


async def swallow(place: Place, mistake: Mistake) -> None:
    """Write, then make the mistake and say nothing."""
    with swallowed():
        await make(place, mistake)


class TestAutocommit:
    async def test_failed_statement_dooms_nothing(self, place: Place) -> None:
        """Each statement is a transaction of its own, durable at once."""
        async with transactional(propagation="not_supported"):
            await write(place.db, "kept")
            with swallowed():
                await statement(await db_session(place.db))
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]


class TestOwnSession:
    """Sessions outside any context: they commit truthfully as well."""

    @EVERY_MISTAKE
    async def test_atomic_one(self, place: Place, mistake: Mistake) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with new_non_ctx_atomic_session(place.db) as session:
                await _write_in(session)
                with swallowed():
                    await mistake(session)
        assert await place.texts() == []

    @EVERY_MISTAKE
    async def test_users_commit(self, place: Place, mistake: Mistake) -> None:
        async with new_non_ctx_session(place.db) as session:
            await _write_in(session)
            with swallowed():
                await mistake(session)
            with pytest.raises(UnexpectedRollbackError):
                await session.commit()
            await session.rollback()
            await _write_in(session, "kept")
            await session.commit()
        assert await place.texts() == ["kept"]

    @SOME_MISTAKES
    async def test_users_begin(self, place: Place, mistake: Mistake) -> None:
        async with new_non_ctx_session(place.db) as session:
            with pytest.raises(UnexpectedRollbackError):
                async with session.begin():
                    await _write_in(session)
                    with swallowed():
                        await mistake(session)
            async with session.begin():
                await _write_in(session, "kept")
        assert await place.texts() == ["kept"]


async def _write_in(session: AsyncSession, words: str = "lost") -> None:
    session.add(Note(text=words))
    await session.flush()


async def _function(place: Place) -> None:
    await commit_db_session(place.db)


async def _session(place: Place) -> None:
    await (await db_session(place.db)).commit()


async def _through_run_sync(place: Place) -> None:
    await (await db_session(place.db)).run_sync(lambda sync: sync.commit())


async def _transaction(place: Place) -> None:
    await (await db_session(place.db)).get_transaction().commit()  # type: ignore[union-attr]


COMMITS = {one.__name__[1:]: one for one in (_function, _session, _through_run_sync, _transaction)}


class TestCommitByHand:
    @pytest.mark.parametrize("commit", COMMITS.values(), ids=list(COMMITS))
    @SOME_MISTAKES
    async def test_raises_and_a_rollback_mends(
        self, place: Place, commit: Callable[[Place], Awaitable[None]], mistake: Mistake
    ) -> None:
        told: list[str] = []
        async with transactional():
            watch(told, "lost")
            await swallow(place, mistake)
            with pytest.raises(UnexpectedRollbackError):
                await commit(place)
            assert await place.texts() == []
            await rollback_db_session(place.db)
            assert told == rolled_back("lost")
            told.clear()
            watch(told, "kept")
            await write(place.db, "kept")
            await commit(place)
            assert told == committed("kept")
        assert await place.texts() == ["kept"]

    @SOME_MISTAKES
    async def test_begin_block_raises_and_is_over(self, place: Place, mistake: Mistake) -> None:
        async with transactional():
            session = await db_session(place.db)
            with pytest.raises(UnexpectedRollbackError):
                async with session.begin():
                    await swallow(place, mistake)
            assert not session.in_transaction()
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_commit_of_the_connection_below(self, place: Place) -> None:
        """Past the session: it is refused, whether something failed or not."""
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                connection = await (await db_session(place.db)).connection()
                await swallow(place, statement)
                with pytest.raises(InvalidRequestError, match="behind its session"):
                    await connection.commit()
        assert await place.texts() == []
