"""Decorated async generators: where the context is, and how a stream ends. On both backends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import Place, SqliteJudge
from tests.notes import Boom, write
from tests.server import Server
from tests.told import committed, rolled_back, watch
from txkit import (
    Database,
    NoContextError,
    after_completion,
    atomic,
    db_session,
    in_transaction,
    new_context,
    set_rollback_only,
    transactional,
)

KINDS = pytest.mark.parametrize(
    "kind", [transactional, atomic, new_context], ids=["transactional", "atomic", "new_context"]
)


async def numbers(db: Database, told: list[str] | None = None) -> AsyncIterator[str]:
    """Write a note before each step."""
    if told is not None:
        watch(told, "stream")
    for number in ("one", "two", "three"):
        await write(db, number)
        assert in_transaction(db)
        yield number


async def given_back(place: Place) -> None:
    """Wait until no connection is out: a generator that was left may be closed a bit later."""
    gc.collect()
    pool = (await place.db.engine()).pool
    while pool.checkedout():  # type: ignore[attr-defined]
        await asyncio.sleep(0)


@KINDS
async def test_exhausted_it_commits_and_its_hooks_run(place: Place, kind: Any) -> None:
    told: list[str] = []
    found: list[str] = []
    async for number in kind(numbers)(place.db, told):
        found.append(number)
        assert await place.texts() == []
    assert found == ["one", "two", "three"]
    assert await place.texts() == found
    assert told == committed("stream")


@KINDS
async def test_consumer_is_in_no_context(place: Place, kind: Any) -> None:
    async for _ in kind(numbers)(place.db):
        assert not in_transaction()
        with pytest.raises(NoContextError):
            await db_session(place.db)


@KINDS
async def test_error_of_the_body_rolls_back(place: Place, kind: Any) -> None:
    told: list[str] = []

    @kind
    async def fails() -> AsyncIterator[int]:
        watch(told, "stream")
        await write(place.db, "lost")
        yield 1
        raise Boom

    with pytest.raises(Boom):
        async for _ in fails():
            pass
    assert await place.texts() == []
    assert told == rolled_back("stream")
    await given_back(place)


@KINDS
async def test_left_early_it_rolls_back(place: Place, kind: Any) -> None:
    told: list[str] = []
    async with aclosing(kind(numbers)(place.db, told)) as stream:
        async for _ in stream:
            break
    assert told == rolled_back("stream")
    assert await place.texts() == []
    await given_back(place)


@KINDS
async def test_left_to_the_collector_it_rolls_back(place: Place, kind: Any) -> None:
    done = asyncio.Event()

    @kind
    async def stream() -> AsyncIterator[int]:
        after_completion(lambda outcome: (told.append(outcome), done.set()))
        await write(place.db, "lost")
        yield 1
        yield 2

    told: list[str] = []
    async for _ in stream():
        break
    await done.wait()
    assert told == ["rolled_back"]
    assert await place.texts() == []
    await given_back(place)


async def test_body_that_cleans_up_uses_its_session_when_it_is_left(place: Place) -> None:
    cleaned: list[int] = []

    @transactional
    async def stream() -> AsyncIterator[int]:
        try:
            await write(place.db, "lost")
            yield 1
        finally:
            session = await db_session(place.db)
            cleaned.append((await session.execute(text("SELECT count(*) FROM note"))).scalar_one())

    async with aclosing(stream()) as rows:
        await anext(rows)
    assert cleaned == [1]
    assert await place.texts() == []


async def test_what_is_sent_and_thrown_reaches_the_body(place: Place) -> None:
    @transactional
    async def echo() -> Any:
        got = None
        while got != "end":
            try:
                got = yield got
            except Boom:
                got = "caught"
            await write(place.db, str(got))

    stream = echo()
    assert await stream.asend(None) is None
    assert await stream.asend("a") == "a"
    assert await stream.athrow(Boom()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await stream.asend("end")
    assert await place.texts() == ["a", "caught", "end"]


async def test_what_is_thrown_and_leaves_rolls_back(place: Place) -> None:
    stream = transactional(numbers)(place.db)
    await anext(stream)
    with pytest.raises(Boom):
        await stream.athrow(Boom())  # type: ignore[attr-defined]
    assert await place.texts() == []


async def test_body_that_asks_for_rollback_ends_normally(place: Place) -> None:
    @transactional
    async def stream() -> AsyncIterator[int]:
        await write(place.db, "lost")
        yield 1
        set_rollback_only()
        yield 2

    assert [one async for one in stream()] == [1, 2]
    assert await place.texts() == []


async def test_streams_beside_each_other_have_each_their_own_unit(place: Place) -> None:
    """In autocommit on neither: SQLite has one writer, so there the second only reads."""

    @transactional(read_only=True)
    async def reads() -> AsyncIterator[int]:
        for _ in range(3):
            session = await db_session(place.db)
            yield (await session.execute(text("SELECT count(*) FROM note"))).scalar_one()

    @transactional
    async def writes() -> AsyncIterator[int]:
        for number in range(3):
            await write(place.db, str(number))
            yield number

    async with aclosing(writes()) as rows, aclosing(reads()) as counts:
        for number in range(3):
            assert await anext(rows) == number
            assert await anext(counts) == 0
    assert await place.texts() == []


async def test_consumer_has_a_unit_of_its_own_meanwhile(place: Place) -> None:
    @transactional(read_only=True)
    async def reads() -> AsyncIterator[int]:
        for number in range(3):
            await (await db_session(place.db)).execute(text("SELECT 1"))
            yield number

    async for number in reads():
        await transactional(write)(place.db, str(number))
        assert (await place.texts())[-1] == str(number)


async def test_own_block_of_the_body_stays_its_own_over_the_steps(place: Place) -> None:
    @transactional
    async def stream() -> AsyncIterator[int]:
        await write(place.db, "kept")
        with pytest.raises(Boom):
            async with atomic(place.db, current_transaction="savepoint"):
                await write(place.db, "lost")
                yield 1
                await write(place.db, "lost too")
                raise Boom
        yield 2

    async for _ in stream():
        assert not in_transaction()
    assert await place.texts() == ["kept"]


async def test_context_manager_of_a_stream_gives_its_user_no_context(place: Place) -> None:
    @asynccontextmanager
    @transactional
    async def unit() -> AsyncIterator[str]:
        await write(place.db, "before")
        yield "value"
        await write(place.db, "after")

    async with unit() as value:
        assert value == "value"
        assert not in_transaction()
    assert await place.texts() == ["before", "after"]


async def test_stream_in_autocommit_is_durable_at_each_step(place: Place) -> None:
    @transactional(propagation="supports")
    async def stream() -> AsyncIterator[int]:
        for number in range(2):
            await write(place.db, str(number))
            yield number

    async for number in stream():
        assert (await place.texts())[-1] == str(number)


@pytest.mark.parametrize("backend", ["postgres", "sqlite"])
def test_loop_that_ends_rolls_back_what_was_left(
    backend: str, server: Server, sqlite_judge: SqliteJudge
) -> None:
    """Scenario: the program ends with a generator that is still suspended."""
    told: list[str] = []
    url = sqlite_judge.url if backend == "sqlite" else server.admin_url

    @transactional
    async def stream(db: Database) -> AsyncIterator[int]:
        after_completion(told.append)
        await (await db_session(db)).execute(text("SELECT 1"))
        yield 1

    kept: list[Any] = []

    async def main() -> None:
        rows = stream(Database(url))
        kept.append(rows)
        await anext(rows)

    asyncio.run(main())
    assert told == ["rolled_back"]
