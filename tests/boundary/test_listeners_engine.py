"""Listeners of the user's to events of the engine, and those that send something. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tests.boundary.faces import is_postgres
from tests.boundary.mistakes import SENT, Mistake, swallowed
from tests.conftest import Place
from tests.notes import write
from tests.told import rolled_back, watch
from tests.ways import UNITS, Unit, each
from txkit import (
    Database,
    UnexpectedRollbackError,
    db_session,
    new_non_ctx_atomic_session,
    transactional,
)


class Translated(Exception):
    """What a listener raises in place of the database's error."""


@pytest.fixture(params=["raises", "returns"])
async def translating(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[Database]:
    """A Database whose engine translates errors."""
    url = place.judge.url.replace("postgresql:", "postgresql+asyncpg:")
    url = url.replace("sqlite:", "sqlite+aiosqlite:")
    options: dict[str, Any] = {"connect_args": {"ssl": False}} if is_postgres(place) else {}

    def make(_: str | None) -> AsyncEngine:
        engine = create_async_engine(url, pool_size=1, max_overflow=0, **options)

        @event.listens_for(engine.sync_engine, "handle_error", retval=True)
        def translate(context: Any) -> Exception:
            error = Translated(str(context.original_exception))
            if request.param == "raises":
                raise error
            return error

        return engine

    async with Database(engine_factory=make) as db:
        yield db
        assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]


@each("unit", UNITS)
async def test_swallowed_error_dooms_as_any_other(
    place: Place, translating: Database, unit: Unit
) -> None:
    told: list[str] = []
    with pytest.raises(UnexpectedRollbackError):
        async with unit(translating):
            await write(translating, "lost")
            watch(told, "unit")
            with swallowed(Translated):
                await (await db_session(translating)).execute(text("SELECT * FROM missing"))
    assert told == rolled_back("unit")
    assert await place.texts() == []


@pytest.mark.parametrize("mistake", SENT.values(), ids=SENT)
async def test_however_it_was_made(place: Place, translating: Database, mistake: Mistake) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            await write(translating, "lost")
            with swallowed(Translated):
                await mistake(await db_session(translating))
    assert await place.texts() == []


async def test_next_statement_is_refused(place: Place, translating: Database) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            await write(translating, "lost")
            with swallowed(Translated):
                await (await db_session(translating)).execute(text("SELECT * FROM missing"))
            with pytest.raises(UnexpectedRollbackError):
                await write(translating, "never sent")
    assert await place.texts() == []


async def test_outside_any_context(place: Place, translating: Database) -> None:
    async def swallows(session: AsyncSession) -> None:
        with swallowed(Translated):
            await session.execute(text("SELECT * FROM missing"))

    with pytest.raises(UnexpectedRollbackError):
        async with new_non_ctx_atomic_session(translating) as session:
            await session.execute(text("INSERT INTO note (text) VALUES ('lost')"))
            await swallows(session)
    assert await place.texts() == []
