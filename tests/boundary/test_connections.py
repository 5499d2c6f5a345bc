"""Connections that a user asks for, or binds: no way around what the unit declared. On both backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import InvalidRequestError

from tests.boundary.faces import is_postgres
from tests.boundary.mistakes import swallowed
from tests.conftest import Place
from tests.notes import count, note, write
from tests.told import rolled_back, watch
from tests.ways import UNITS, Unit, append, each
from txkit import (
    Database,
    IncompatibleTransactionError,
    UnexpectedRollbackError,
    db_session,
    transactional,
)

Way: TypeAlias = Callable[[Database, str], Awaitable[object]]
INSERT = insert(note).values(text="lost")


async def by_connection(db: Database, level: str) -> None:
    session = await db_session(db)
    await session.connection(execution_options={"isolation_level": level})
    await session.execute(INSERT)


async def by_bind(db: Database, level: str) -> None:
    engine = (await db.engine()).sync_engine.execution_options(isolation_level=level)
    await (await db_session(db)).execute(INSERT, bind_arguments={"bind": engine})


async def by_connection_with_bind(db: Database, level: str) -> None:
    engine = (await db.engine()).sync_engine.execution_options(isolation_level=level)
    session = await db_session(db)
    connection = await session.connection(bind_arguments={"bind": engine})
    await connection.execute(INSERT)


WAYS: list[Way] = [by_connection, by_bind, by_connection_with_bind]
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


@EVERY_WAY
class TestAutocommit:
    @each("unit", [unit for unit in UNITS if unit is not append])  # that has begun already
    async def test_is_refused_and_nothing_is_durable(
        self, place: Place, unit: Unit, way: Way
    ) -> None:
        with pytest.raises(IncompatibleTransactionError) as caught:
            async with unit(place.db):
                await way(place.db, "AUTOCOMMIT")
        assert (caught.value.option, caught.value.asked) == ("isolation_level", "AUTOCOMMIT")
        assert await place.texts() == []
        await transactional(write)(place.db, "next")
        assert await place.texts() == ["next"]

    async def test_swallowed_it_dooms_the_unit(self, place: Place, way: Way) -> None:
        told: list[str] = []
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                watch(told, "unit")
                with swallowed(IncompatibleTransactionError) as first:
                    await way(place.db, "AUTOCOMMIT")
                with pytest.raises(UnexpectedRollbackError):
                    await write(place.db, "never sent")
                assert await place.texts() == []
        assert caught.value.__cause__ is first.error
        assert told == rolled_back("unit")
        assert await place.texts() == []


@EVERY_WAY
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
async def test_declared_level_is_not_undone(place: Place, way: Way, level: str) -> None:
    """SQLite has one level, and autocommit."""
    if level != "AUTOCOMMIT" and not is_postgres(place):
        pytest.skip("SQLite has one level")
    with pytest.raises(IncompatibleTransactionError) as caught:
        async with transactional(isolation="SERIALIZABLE"):
            await way(place.db, level)
    assert (caught.value.option, caught.value.asked) == ("isolation_level", level)
    assert await place.texts() == []


@pytest.mark.parametrize("does", ["raises", "swallows"])
async def test_second_connection_of_one_session_is_refused(place: Place, does: str) -> None:
    """Its transaction would be committed by itself, whatever becomes of the first one."""
    told: list[str] = []
    options = {} if is_postgres(place) else {"read_only": True}  # its second writer has to wait

    @transactional(**options)
    async def unit() -> None:
        watch(told, "unit")
        if is_postgres(place):
            await write(place.db, "lost")
        await count(place.db)
        engine = (await place.db.engine()).sync_engine.execution_options(logging_token="other")
        session = await db_session(place.db)
        with swallowed(InvalidRequestError) as refused:
            await session.execute(text("SELECT 1"), bind_arguments={"bind": engine})
        if does == "raises":
            raise refused.error

    with pytest.raises((InvalidRequestError, UnexpectedRollbackError), match="second connection"):
        await unit()
    assert told == rolled_back("unit")
    assert await place.texts() == []
    await transactional(write)(place.db, "next")
    assert await place.texts() == ["next"]
