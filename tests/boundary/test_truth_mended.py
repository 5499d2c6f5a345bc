"""What mends a broken transaction, and what never broke it: nothing was sent. On both backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.boundary.mistakes import (
    UNSENT,
    Mistake,
    orm_flush,
    statement,
    swallowed,
)
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import write
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    close_db_session,
    db_session,
    new_non_ctx_atomic_session,
    rollback_db_session,
    transactional,
)


async def _make(db: Database, mistake: Mistake) -> None:
    await write(db, "lost")
    await mistake(await db_session(db))


async def by_function(db: Database) -> None:
    await rollback_db_session(db)


async def by_session(db: Database) -> None:
    await (await db_session(db)).rollback()


async def by_run_sync(db: Database) -> None:
    await (await db_session(db)).run_sync(lambda sync: sync.rollback())


async def by_transaction(db: Database) -> None:
    await (await db_session(db)).get_transaction().rollback()  # type: ignore[union-attr]


async def by_close(db: Database) -> None:
    await close_db_session(db)


async def by_session_close(db: Database) -> None:
    await (await db_session(db)).close()


async def by_session_reset(db: Database) -> None:
    await (await db_session(db)).reset()


async def by_block(db: Database) -> None:
    async with atomic(db, current_transaction="rollback"):
        pass


ROLLBACKS = [
    by_function,
    by_session,
    by_run_sync,
    by_transaction,
    by_close,
    by_session_close,
    by_session_reset,
    by_block,
]


@pytest.mark.parametrize("roll_back", ROLLBACKS)
@pytest.mark.parametrize("mistake", [statement, orm_flush])
async def test_rollback_by_hand_mends(
    place: Place, roll_back: Callable[[Database], Awaitable[None]], mistake: Mistake
) -> None:
    async with transactional():
        with swallowed():
            await _make(place.db, mistake)
        await roll_back(place.db)
        await write(place.db, "kept")
    assert await place.texts() == ["kept"]


async def test_block_that_took_the_transaction_over_rolls_it_back(place: Place) -> None:
    async with transactional():
        with swallowed():
            await _make(place.db, statement)
        with pytest.raises(UnexpectedRollbackError):
            async with atomic(place.db, current_transaction="append"):
                await write(place.db, "lost too")
        await write(place.db, "kept")
    assert await place.texts() == ["kept"]


class TestNeverSent:
    """What the database never heard of leaves its transaction as it was."""

    @pytest.mark.parametrize("mistake", UNSENT.values(), ids=list(UNSENT))
    async def test_dooms_nothing(self, place: Place, mistake: Mistake) -> None:
        async with transactional():
            await write(place.db, "kept")
            with swallowed():
                await mistake(await db_session(place.db))
            async with atomic(place.db, current_transaction="savepoint") as session:
                await write(place.db, "kept too")
                with swallowed():
                    await mistake(session)
        assert await place.texts() == ["kept", "kept too"]

    @pytest.mark.parametrize("mistake", UNSENT.values(), ids=list(UNSENT))
    async def test_dooms_no_session_outside_a_context(self, place: Place, mistake: Mistake) -> None:
        async with new_non_ctx_atomic_session(place.db) as session:
            session.add(Note(text="kept"))
            with swallowed():
                await mistake(session)
        assert await place.texts() == ["kept"]
