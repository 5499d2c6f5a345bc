"""A context that goes from task to task, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import write
from txkit import after_commit, atomic, commit_db_session, db_session, transactional

Work = Coroutine[Any, Any, None]
Way = Callable[[Work], Awaitable[Any]]


async def as_task(work: Work) -> None:
    await asyncio.create_task(work)


async def shielded(work: Work) -> None:
    await asyncio.shield(work)


async def waited_for(work: Work) -> None:
    await asyncio.wait_for(work, 60)


async def gathered(work: Work) -> None:
    await asyncio.gather(work, asyncio.sleep(0))


async def in_a_group(work: Work) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(work)


async def in_a_group_of_anyio(work: Work) -> None:
    async def run() -> None:
        await work

    async with anyio.create_task_group() as group:
        group.start_soon(run)


async def twice_removed(work: Work) -> None:
    await asyncio.create_task(as_task(work))


async def waited_without_await(work: Work) -> None:
    await asyncio.wait({asyncio.create_task(work)})


WAYS = [
    as_task,
    shielded,
    waited_for,
    gathered,
    in_a_group,
    in_a_group_of_anyio,
    twice_removed,
    waited_without_await,
]


@pytest.mark.parametrize("way", WAYS)
async def test_child_uses_it_and_the_caller_comes_back(place: Place, way: Way) -> None:
    @transactional
    async def unit() -> None:
        session = await db_session(place.db)
        await write(place.db, "before")
        await way(write(place.db, "child"))
        await way(write(place.db, "another"))
        assert await db_session(place.db) is session
        await write(place.db, "after")

    await unit()
    assert await place.texts() == ["before", "child", "another", "after"]


@pytest.mark.parametrize("way", WAYS)
async def test_child_opens_blocks_and_ends_by_hand(place: Place, way: Way) -> None:
    told: list[str] = []

    @transactional
    async def joined() -> None:
        await write(place.db, "joined")
        await commit_db_session(place.db)
        async with atomic(place.db):
            await write(place.db, "atomic")
            after_commit(lambda: told.append("atomic"))
        async with (await db_session(place.db)).begin():
            await write(place.db, "own")
        await (await db_session(place.db)).commit()

    @transactional
    async def unit() -> None:
        await way(joined())
        assert told == ["atomic"]

    await unit()
    assert await place.texts() == ["joined", "atomic", "own"]


@pytest.mark.parametrize("way", WAYS)
async def test_whole_unit_below_a_wrapper_task(place: Place, way: Way) -> None:
    @transactional
    async def unit() -> None:
        await write(place.db, "kept")

    await way(unit())
    assert await place.texts() == ["kept"]


async def test_grandchild_follows_a_child_that_uses_it(place: Place) -> None:
    async def child() -> None:
        await write(place.db, "child")
        await asyncio.create_task(write(place.db, "grandchild"))
        await write(place.db, "child again")

    @transactional
    async def unit() -> None:
        await asyncio.create_task(child())
        await write(place.db, "unit")

    await unit()
    assert await place.texts() == ["child", "grandchild", "child again", "unit"]


async def test_who_only_watches_is_no_user(place: Place) -> None:
    """Scenario: a task of the unit's that never touches the context outlives it."""
    never = asyncio.Event()

    @transactional
    async def unit() -> asyncio.Task[Any]:
        watcher = asyncio.create_task(never.wait())
        await write(place.db, "kept")
        return watcher

    watcher = await unit()
    assert await place.texts() == ["kept"]
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher


async def test_context_that_one_task_opens_another_uses_and_a_third_ends(place: Place) -> None:
    """As fixtures do that share their ContextVars: each is finished before the next one comes."""
    shared, stack = contextvars.copy_context(), contextlib.AsyncExitStack()

    async def in_shared(work: Work) -> None:
        await asyncio.get_running_loop().create_task(work, context=shared)

    async def opens() -> None:
        await stack.enter_async_context(transactional())

    await in_shared(opens())
    await in_shared(write(place.db, "kept"))
    await in_shared(stack.aclose())
    assert await place.texts() == ["kept"]


async def test_descendant_may_end_what_its_ancestor_has_begun(place: Place) -> None:
    """Scenario: it has not touched the context before, and there are changes to be flushed."""
    told: list[str] = []
    stack = contextlib.AsyncExitStack()
    await stack.enter_async_context(transactional())
    (await db_session(place.db)).add(Note(text="kept"))
    after_commit(lambda: told.append("committed"))
    await asyncio.create_task(stack.aclose())
    assert told == ["committed"]
    assert await place.texts() == ["kept"]
