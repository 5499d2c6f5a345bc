"""A database error that a savepoint undid counts as undone, and no other. On both backends."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from tests.boundary.mistakes import (
    ANY,
    Mistake,
    autoflush,
    orm_flush,
    statement,
    swallowed,
)
from tests.conftest import Place
from tests.notes import Boom, count, write
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    db_session,
    transactional,
)

EVERY_MISTAKE = pytest.mark.parametrize("mistake", ANY.values(), ids=list(ANY))


Undoing = Callable[[Database, Mistake], Awaitable[None]]


async def _make(db: Database, mistake: Mistake) -> None:
    await write(db, "lost")
    await mistake(await db_session(db))


async def begin_nested(db: Database, mistake: Mistake) -> None:
    with swallowed():
        async with (await db_session(db)).begin_nested():
            await _make(db, mistake)


async def begin_nested_rolled_back_inside(db: Database, mistake: Mistake) -> None:
    async with (await db_session(db)).begin_nested() as savepoint:
        with swallowed():
            await _make(db, mistake)
        await savepoint.rollback()


async def begin_nested_around_another(db: Database, mistake: Mistake) -> None:
    session = await db_session(db)
    outer = await session.begin_nested()
    await session.begin_nested()
    with swallowed():
        await _make(db, mistake)
    await outer.rollback()


async def atomic_savepoint(db: Database, mistake: Mistake) -> None:
    with swallowed():
        async with atomic(db, current_transaction="savepoint"):
            await _make(db, mistake)


async def nested(db: Database, mistake: Mistake) -> None:
    with swallowed():
        await transactional(propagation="nested")(_make)(db, mistake)


async def core_begin_nested(db: Database, mistake: Mistake) -> None:
    connection = await (await db_session(db)).connection()
    with swallowed():
        async with connection.begin_nested():
            await _make(db, mistake)


async def savepoint_in_sql(db: Database, mistake: Mistake) -> None:
    session = await db_session(db)
    await session.execute(text("SAVEPOINT mine"))
    with swallowed():
        await _make(db, mistake)
    await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
    await session.execute(text("RELEASE SAVEPOINT mine"))


async def savepoint_in_sql_on_the_connection(db: Database, mistake: Mistake) -> None:
    connection = await (await db_session(db)).connection()
    await connection.exec_driver_sql("SAVEPOINT mine")
    with swallowed():
        await _make(db, mistake)
    await connection.exec_driver_sql("  rollback to mine")


UNDOING: list[Undoing] = [
    begin_nested,
    begin_nested_rolled_back_inside,
    begin_nested_around_another,
    atomic_savepoint,
    nested,
    core_begin_nested,
    savepoint_in_sql,
    savepoint_in_sql_on_the_connection,
]


_FLUSHES = {"orm_flush", "autoflush", "bulk"}  # after one the session itself waits for a rollback


_KNOW_NO_FLUSH = {
    "core_begin_nested",
    "savepoint_in_sql",
    "savepoint_in_sql_on_the_connection",
}


PAIRS = [
    pytest.param(undo, mistake, id=f"{undo.__name__}-{name}")
    for undo in UNDOING
    for name, mistake in ANY.items()
    if not name.startswith("core")
    if not (name in _FLUSHES and undo.__name__ in _KNOW_NO_FLUSH)
]


@pytest.mark.parametrize(("undo", "mistake"), PAIRS)
async def test_savepoint_undoes_it(place: Place, undo: Undoing, mistake: Mistake) -> None:
    async with transactional():
        await write(place.db, "before")
        await undo(place.db, mistake)
        assert await count(place.db) == 1
        await write(place.db, "after")
    assert await place.texts() == ["before", "after"]


@pytest.mark.parametrize("undo", UNDOING)
@pytest.mark.parametrize("around", ["atomic", "savepoint", "nested"])
async def test_savepoint_undoes_it_inside_a_block(place: Place, undo: Undoing, around: str) -> None:
    async with transactional():
        await write(place.db, "before")
        block: Any = transactional(propagation="nested")
        if around != "nested":
            mode = "append" if around == "atomic" else "savepoint"
            block = atomic(place.db, current_transaction=mode)
        async with block:
            await undo(place.db, statement)
            await write(place.db, "after")
    assert await place.texts() == ["before", "after"]


async def test_second_error_after_the_savepoint_dooms_again(place: Place) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional():
            await write(place.db, "lost")
            await begin_nested(place.db, statement)
            await write(place.db, "lost too")
            with swallowed() as second:
                await statement(await db_session(place.db))
    assert caught.value.__cause__ is second.error
    assert await place.texts() == []


async def test_savepoint_set_after_the_error_undoes_nothing(place: Place) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional():
            await write(place.db, "lost")
            session = await db_session(place.db)
            connection = await session.connection()
            with swallowed() as first:
                await statement(session)
            with swallowed():
                async with session.begin_nested():
                    await write(place.db, "lost too")
            with swallowed():
                async with connection.begin_nested():
                    raise Boom
            with contextlib.suppress(UnexpectedRollbackError):  # PostgreSQL refuses by itself
                await connection.exec_driver_sql("SAVEPOINT late")
                await connection.exec_driver_sql("ROLLBACK TO SAVEPOINT late")
    assert caught.value.__cause__ is first.error
    assert await place.texts() == []


async def test_released_savepoint_can_not_undo_what_failed_after_it(place: Place) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            session = await db_session(place.db)
            async with session.begin_nested():
                await write(place.db, "lost")
            with swallowed():
                await statement(session)
            async with session.begin_nested():
                raise AssertionError
    assert await place.texts() == []


@pytest.mark.parametrize("mistake", [statement, orm_flush, autoflush])
async def test_release_of_a_broken_savepoint_is_refused_and_undoes_it(
    place: Place, mistake: Mistake
) -> None:
    """The error was swallowed inside the savepoint, whose end would be a success."""
    async with transactional():
        await write(place.db, "before")
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with (await db_session(place.db)).begin_nested():
                await write(place.db, "lost")
                with swallowed() as first:
                    await mistake(await db_session(place.db))
        assert getattr(caught.value.__cause__, "orig", 0) is getattr(first.error, "orig", 1)
        await write(place.db, "after")
    assert await place.texts() == ["before", "after"]
