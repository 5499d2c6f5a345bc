"""The user's own ``session.begin_nested()`` is a unit like ours: doomed, judged, mended. On both backends."""

from __future__ import annotations

import pytest

from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import Database, UnexpectedRollbackError, db_session, transactional


@transactional(name="culprit")
async def culprit(db: Database) -> None:
    await write(db, "lost")
    raise Boom("no")


async def test_refusal_in_an_autoflush_does_not_lift_the_mark(place: Place) -> None:
    @transactional
    async def adds_and_fails() -> None:
        (await db_session(place.db)).add(Note(text="half"))
        raise Boom

    async with transactional():
        session = await db_session(place.db)
        await write(place.db, "kept")
        with pytest.raises(UnexpectedRollbackError, match="savepoint"):
            async with session.begin_nested():
                await write(place.db, "lost")
                with swallowed(Boom):
                    await adds_and_fails()
                with swallowed(UnexpectedRollbackError):
                    await write(place.db, "refused")
    assert await place.texts() == ["kept"]


async def test_savepoint_left_open_is_judged_at_the_end(place: Place) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "lost")
            await session.begin_nested()
            await write(place.db, "half")
            with swallowed(Boom):
                await culprit(place.db)
    assert await place.texts() == []


async def test_outer_savepoint_with_a_healthy_one_inside_is_not_released(place: Place) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "lost")
            outer = await session.begin_nested()
            with swallowed(Boom):
                await culprit(place.db)
            with swallowed(UnexpectedRollbackError):
                await session.begin_nested()
            await outer.commit()
    assert await place.texts() == []
