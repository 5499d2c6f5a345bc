"""Two tasks in one context: the second one is refused before anything is sent, and told so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.faces import BOTH_FACES, Run
from tests.conftest import Place
from tests.notes import note, write
from txkit import (
    ConcurrentSessionUseError,
    Database,
    after_commit,
    after_completion,
    atomic,
    atomic_db_session,
    before_commit,
    close_db_session,
    commit_db_session,
    db_session,
    new_context,
    rollback_db_session,
    set_rollback_only,
    transactional,
)

Way = Callable[[Database, AsyncSession], Awaitable[Any]]


async def joined(db: Database, session: AsyncSession) -> None:
    @transactional
    async def function() -> None:
        raise AssertionError

    await function()


async def joined_with_options(db: Database, session: AsyncSession) -> None:
    @transactional(timeout_s=5)
    async def function() -> None:
        raise AssertionError

    await function()


async def block(db: Database, session: AsyncSession) -> None:
    async with transactional():
        raise AssertionError


async def nested(db: Database, session: AsyncSession) -> None:
    async with transactional(propagation="nested"):
        raise AssertionError


async def atomic_function(db: Database, session: AsyncSession) -> None:
    @atomic
    async def function() -> None:
        raise AssertionError

    await function()


async def atomic_block(db: Database, session: AsyncSession) -> None:
    async with atomic(db):
        raise AssertionError


async def atomic_of_the_seed(db: Database, session: AsyncSession) -> None:
    async with atomic_db_session(db):
        raise AssertionError


async def savepoint(db: Database, session: AsyncSession) -> None:
    async with session.begin_nested():
        raise AssertionError


async def own_begin(db: Database, session: AsyncSession) -> None:
    async with session.begin():
        raise AssertionError


async def rollback_only(db: Database, session: AsyncSession) -> None:
    set_rollback_only()


async def hook(db: Database, session: AsyncSession) -> None:
    after_commit(lambda: None)


async def early_hook(db: Database, session: AsyncSession) -> None:
    before_commit(lambda: None)


async def last_hook(db: Database, session: AsyncSession) -> None:
    after_completion(lambda _: None)


async def add(db: Database, session: AsyncSession) -> None:
    session.add(object())


async def add_through_run_sync(db: Database, session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.execute(text("SELECT 1")))


WAYS: dict[str, Way] = {
    "db_session": lambda db, _: db_session(db),
    "commit_db_session": lambda db, _: commit_db_session(db),
    "rollback_db_session": lambda db, _: rollback_db_session(db),
    "close_db_session": lambda db, _: close_db_session(db),
    "execute": lambda _, session: session.execute(insert(note).values(text="never")),
    "stream": lambda _, session: session.stream(text("SELECT 1")),
    "connection": lambda _, session: session.connection(),
    "flush": lambda _, session: session.flush(),
    "commit": lambda _, session: session.commit(),
    "rollback": lambda _, session: session.rollback(),
    "close": lambda _, session: session.close(),
    **{
        way.__name__: way
        for way in (
            joined,
            joined_with_options,
            block,
            nested,
            atomic_function,
            atomic_block,
            atomic_of_the_seed,
            savepoint,
            own_begin,
            rollback_only,
            hook,
            early_hook,
            last_hook,
            add,
            add_through_run_sync,
        )
    },
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_second_task_is_refused_and_the_unit_goes_on(place: Place, way: Way) -> None:
    """Nothing is sent, and nothing is marked: the first task's row is committed."""

    async def first(go_on: asyncio.Event) -> None:
        await write(place.db, "kept")
        await go_on.wait()

    @transactional
    async def unit() -> None:
        session, go_on = await db_session(place.db), asyncio.Event()
        user = asyncio.create_task(first(go_on), name="first")
        while not session.in_transaction():
            await asyncio.sleep(0)
        late = asyncio.create_task(way(place.db, session), name="second")  # type: ignore[arg-type]
        with pytest.raises(ConcurrentSessionUseError) as caught:
            await late
        assert (caught.value.task, caught.value.user) == ("second", "first")
        assert caught.value.opened_by.endswith("unit")
        assert all(word in str(caught.value) for word in ("'second'", "'first'", "@new_context"))
        go_on.set()
        await user

    await unit()
    assert await place.texts() == ["kept"]


@BOTH_FACES
async def test_caller_that_does_not_wait_for_its_task_is_refused(place: Place, run: Run) -> None:
    async def body() -> None:
        await write(place.db, "kept")
        go_on, uses = asyncio.Event(), asyncio.Event()

        async def child() -> None:
            await write(place.db, "the child's")
            uses.set()
            await go_on.wait()

        task = asyncio.create_task(child(), name="child")
        await uses.wait()
        with pytest.raises(ConcurrentSessionUseError) as caught:
            await write(place.db, "never")
        assert caught.value.user == "child"
        go_on.set()
        await task
        await write(place.db, "again")

    await run(transactional(), body)
    assert await place.texts() == ["kept", "the child's", "again"]


async def test_gather_in_one_context_is_refused_and_rolled_back(place: Place) -> None:
    @transactional
    async def unit() -> None:
        await asyncio.gather(write(place.db, "a"), write(place.db, "b"))

    with pytest.raises(ConcurrentSessionUseError):
        await unit()
    pool = (await place.db.engine()).pool
    while pool.checkedout():  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    assert await place.texts() == []


async def test_gather_of_units_is_what_the_error_says(place: Place) -> None:
    own = new_context(write)

    @transactional
    async def unit() -> None:
        await asyncio.gather(own(place.db, "a"), own(place.db, "b"))

    await unit()
    assert sorted(await place.texts()) == ["a", "b"]


async def test_stranger_with_the_session_is_refused_until_its_user_is_finished(
    place: Place,
) -> None:
    """Scenario: the task was made before the context was opened."""
    handed: asyncio.Queue[AsyncSession] = asyncio.Queue()
    refused = asyncio.Event()

    async def stranger() -> None:
        session = await handed.get()
        with pytest.raises(ConcurrentSessionUseError):
            await session.execute(text("SELECT 1"))
        refused.set()

    task = asyncio.create_task(stranger())

    @transactional
    async def unit() -> None:
        await write(place.db, "kept")
        handed.put_nowait(await db_session(place.db))
        await refused.wait()

    await unit()
    await task
    assert await place.texts() == ["kept"]
