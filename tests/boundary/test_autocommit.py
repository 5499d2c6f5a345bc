"""Autocommit: each statement is durable at once, and nothing is ever rolled back. On both backends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, count, write
from txkit import (
    TransactionRequiredError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    in_transaction,
    new_context,
    rollback_db_session,
    set_rollback_only,
    transactional,
)

OPEN_ONE = pytest.mark.parametrize("how", ["supports", "not_supported", "never"])
INSIDE: dict[str, Any] = {
    "required": transactional,
    "requires_new": transactional(propagation="requires_new"),
    "nested": transactional(propagation="nested"),
    "atomic": atomic,
    "new_context": new_context,
}


@BOTH_FACES
@OPEN_ONE
async def test_statements_are_durable_while_the_body_runs(place: Place, run: Run, how: str) -> None:
    async def body() -> None:
        await write(place.db, "a")
        assert await place.texts() == ["a"]
        await write(place.db, "b")
        assert await place.texts() == ["a", "b"]
        assert not in_transaction()
        assert not in_transaction(place.db)

    await run(transactional(propagation=how), body)
    assert await place.texts() == ["a", "b"]


@BOTH_FACES
@OPEN_ONE
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, asyncio.CancelledError])
async def test_exception_undoes_nothing(
    place: Place, run: Run, how: str, error: type[BaseException]
) -> None:
    async def body() -> None:
        await write(place.db, "kept")
        (await db_session(place.db)).add(Note(text="pending, dropped"))
        raise error

    with pytest.raises(error) as caught:
        await run(transactional(propagation=how), body)
    assert not hasattr(caught.value, "__notes__")
    assert await place.texts() == ["kept"]


@BOTH_FACES
@OPEN_ONE
async def test_pending_orm_changes_are_flushed_at_the_end(place: Place, run: Run, how: str) -> None:
    async def body() -> None:
        session = await db_session(place.db)
        session.add(Note(text="flushed by hand"))
        await session.flush()
        assert await place.texts() == ["flushed by hand"]
        session.add(Note(text="flushed at the end"))

    await run(transactional(propagation=how), body)
    assert await place.texts() == ["flushed by hand", "flushed at the end"]


@OPEN_ONE
async def test_refused_flush_at_the_end_is_an_error_of_the_call(place: Place, how: str) -> None:
    with pytest.raises(IntegrityError):
        async with transactional(propagation=how):
            await write(place.db, "kept")
            (await db_session(place.db)).add(Note(text=None))  # type: ignore[arg-type]
    assert await place.texts() == ["kept"]


@OPEN_ONE
@pytest.mark.parametrize("by", ["function", "session"])
async def test_ends_by_hand(place: Place, how: str, by: str) -> None:
    """A commit flushes, a rollback and a close drop what is pending; nothing durable is undone."""
    async with transactional(propagation=how):
        session = await db_session(place.db)
        await write(place.db, "a")
        session.add(Note(text="b"))
        await (commit_db_session(place.db) if by == "function" else session.commit())
        assert await place.texts() == ["a", "b"]
        await write(place.db, "c")
        session.add(Note(text="dropped"))
        await (rollback_db_session(place.db) if by == "function" else session.rollback())
        await write(place.db, "d")
        assert await place.texts() == ["a", "b", "c", "d"]
        session.add(Note(text="dropped"))
        await (close_db_session(place.db) if by == "function" else session.close())
        await write(place.db, "e")
        assert await place.texts() == ["a", "b", "c", "d", "e"]
        assert await db_session(place.db) is not session
    assert await place.texts() == ["a", "b", "c", "d", "e"]


@OPEN_ONE
async def test_set_rollback_only_is_refused(place: Place, how: str) -> None:
    """Nothing could be rolled back; the body goes on."""
    async with transactional(propagation=how):
        await write(place.db, "a")
        with pytest.raises(TransactionRequiredError, match="autocommit") as caught:
            set_rollback_only()
        assert caught.value.function == "set_rollback_only"
        await write(place.db, "b")
    assert await place.texts() == ["a", "b"]


@OPEN_ONE
@pytest.mark.parametrize("way", ["block", "call", "sync"])
async def test_session_begin_is_refused(place: Place, how: str, way: str) -> None:
    """It would be no transaction; the body goes on."""
    async with transactional(propagation=how):
        session = await db_session(place.db)
        with pytest.raises(TransactionRequiredError, match="autocommit") as caught:
            if way == "sync":
                await session.run_sync(lambda sync: sync.begin())
            elif way == "call":
                await session.begin()
            else:
                async with session.begin():
                    await write(place.db, "never sent")
        assert caught.value.function == "session.begin"
        await write(place.db, "a")
    assert await place.texts() == ["a"]


@OPEN_ONE
@pytest.mark.parametrize("through", ["core", "orm"])
async def test_swallowed_database_error_dooms_nothing(place: Place, how: str, through: str) -> None:
    async with transactional(propagation=how):
        session = await db_session(place.db)
        await write(place.db, "a")
        with pytest.raises(IntegrityError):
            if through == "core":
                await session.execute(text("INSERT INTO note (text) VALUES (NULL)"))
            else:
                session.add(Note(text=None))  # type: ignore[arg-type]
                await session.flush()
        if through == "orm":  # as SQLAlchemy asks after a failed flush
            await rollback_db_session(place.db)
        await write(place.db, "b")
        assert await place.texts() == ["a", "b"]
    assert await place.texts() == ["a", "b"]


@BOTH_FACES
@OPEN_ONE
@pytest.mark.parametrize("joined", ["supports", "not_supported", "never"])
async def test_joined_failure_dooms_nothing(place: Place, run: Run, how: str, joined: str) -> None:
    async def fails() -> None:
        await write(place.db, "b")
        raise Boom

    async with transactional(propagation=how):
        await write(place.db, "a")
        with pytest.raises(Boom):
            await run(transactional(propagation=joined), fails)
        await write(place.db, "c")
    assert await place.texts() == ["a", "b", "c"]


@BOTH_FACES
@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("fails", [False, True])
async def test_transaction_inside_stands_alone(
    place: Place, run: Run, inside: str, fails: bool
) -> None:
    """What needs a transaction opens one of its own, committed or rolled back by itself."""

    async def body() -> None:
        assert await db_session(place.db) is not around
        await write(place.db, "inside")
        assert in_transaction(place.db)
        assert await place.texts() == ["a"]
        if fails:
            raise Boom

    async with transactional(propagation="never"):
        around = await db_session(place.db)
        await write(place.db, "a")
        if fails:
            with pytest.raises(Boom):
                await run(INSIDE[inside], body)
        else:
            await run(INSIDE[inside], body)
        assert await place.texts() == ["a"] + ["inside"] * (not fails)
        assert not in_transaction()
        assert await db_session(place.db) is around
        await write(place.db, "b")
    assert await place.texts() == ["a"] + ["inside"] * (not fails) + ["b"]


@OPEN_ONE
async def test_next_unit_on_the_connection_has_a_transaction(place: Place, how: str) -> None:
    """Autocommit ends with its unit, whichever way that was left, and the pool may be as small as one."""
    outcomes = [None, Boom(), asyncio.CancelledError()]
    for number, error in enumerate(outcomes):
        try:
            async with transactional(propagation=how):
                await write(place.db, str(number))
                if error is not None:
                    raise error
        except (Boom, asyncio.CancelledError) as caught:
            assert caught is error  # noqa: PT017
        with pytest.raises(Boom):
            async with transactional():
                session = await db_session(place.db)
                await write(place.db, "lost")
                await session.execute(text("CREATE TABLE other (id INTEGER)"))
                async with session.begin_nested():
                    await write(place.db, "lost too")
                assert await count(place.db) == number + 3
                raise Boom
        async with (await place.db.engine()).connect() as connection:
            await connection.execute(text("INSERT INTO note (text) VALUES ('lost')"))
    assert await place.texts() == ["0", "1", "2"]


async def test_rollback_rules_of_supports_judge_where_it_joins(place: Place) -> None:
    """In autocommit they have nothing to do."""
    unit = transactional(propagation="supports", no_rollback_for=Boom)
    with pytest.raises(Boom):
        async with unit:
            await write(place.db, "a")
            raise Boom
    async with transactional():
        with pytest.raises(Boom):
            async with unit:
                await write(place.db, "b")
                raise Boom
    assert await place.texts() == ["a", "b"]
