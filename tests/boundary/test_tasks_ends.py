"""A boundary or block that ends while another task is at work in it: no half is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import rolled_back, watch
from txkit import (
    ConcurrentSessionUseError,
    ContextClosedError,
    atomic,
    db_session,
    new_context,
    set_rollback_only,
    transactional,
)


class Child:
    """A task of the unit's that has written, and is not finished."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._go_on = asyncio.Event()
        self._uses = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="child")

    async def _run(self) -> None:
        await write(self._place.db, "half")
        self._uses.set()
        await self._go_on.wait()
        await write(self._place.db, "other half")

    async def uses(self) -> None:
        await self._uses.wait()

    async def goes_on(self) -> None:
        """Let it go on, now that its context has ended."""
        self._go_on.set()
        with pytest.raises(ContextClosedError):
            await self.task


@asynccontextmanager
async def late_child(place: Place) -> AsyncIterator[list[Child]]:
    """Give a list for the child that a unit leaves behind; it must fail in the end."""
    children: list[Child] = []
    yield children
    for child in children:
        await child.goes_on()


@BOTH_FACES
async def test_boundary_rolls_back_and_names_the_task(place: Place, run: Run) -> None:
    told: list[str] = []
    async with late_child(place) as left:

        async def body() -> None:
            watch(told, "unit")
            left.append(Child(place))
            await left[0].uses()

        with pytest.raises(ConcurrentSessionUseError) as caught:
            await run(transactional(name="unit"), body)
        assert (caught.value.function, caught.value.user) == ("unit", "child")
        assert "was rolled back" in str(caught.value)
    assert await place.texts() == []
    assert told[-2:] == rolled_back("unit")


@BOTH_FACES
async def test_new_context_does_the_same(place: Place, run: Run) -> None:
    async with late_child(place) as left:

        async def body() -> None:
            left.append(Child(place))
            await left[0].uses()

        with pytest.raises(ConcurrentSessionUseError):
            await run(new_context(), body)
    assert await place.texts() == []


@BOTH_FACES
async def test_exception_that_leaves_wins_and_names_the_task(place: Place, run: Run) -> None:
    async with late_child(place) as left:

        async def body() -> None:
            left.append(Child(place))
            await left[0].uses()
            raise Boom

        with pytest.raises(Boom) as caught:
            await run(transactional(), body)
        assert "'child'" in "".join(caught.value.__notes__)
    assert await place.texts() == []


@BOTH_FACES
async def test_no_rule_commits_half(place: Place, run: Run) -> None:
    async with late_child(place) as left:

        async def body() -> None:
            left.append(Child(place))
            await left[0].uses()
            raise Boom

        with pytest.raises(Boom) as caught:
            await run(transactional(no_rollback_for=Boom), body)
        assert "'child'" in "".join(caught.value.__notes__)
    assert await place.texts() == []


async def test_cancelled_boundary_names_the_task(place: Place) -> None:
    async with late_child(place) as left:
        waits = asyncio.Event()

        @transactional
        async def unit() -> None:
            left.append(Child(place))
            await left[0].uses()
            waits.set()
            await asyncio.shield(left[0].task)

        task = asyncio.create_task(unit())
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "'child'" in "".join(caught.value.__notes__)
    assert await place.texts() == []


@BOTH_FACES
async def test_rollback_that_was_wanted_returns_normally(place: Place, run: Run) -> None:
    async with late_child(place) as left:

        async def body() -> None:
            set_rollback_only()
            left.append(Child(place))
            await left[0].uses()

        await run(transactional(), body)
    assert await place.texts() == []


@BOTH_FACES
async def test_atomic_block_is_rolled_back_and_the_boundary_cannot_commit(
    place: Place, run: Run
) -> None:
    """Scenario: the block's error is swallowed, and the task is still not finished at the end."""
    async with late_child(place) as left:

        @transactional(name="unit")
        async def unit() -> None:
            async def body() -> None:
                left.append(Child(place))
                await left[0].uses()

            with pytest.raises(ConcurrentSessionUseError) as caught:
                await run(atomic(place.db), body)
            assert caught.value.user == "child"

        with pytest.raises(ConcurrentSessionUseError):
            await unit()
    assert await place.texts() == []


async def test_late_task_has_its_own_unit_in_a_decorated_function(place: Place) -> None:
    ended = asyncio.Event()

    async def late() -> None:
        await ended.wait()
        with pytest.raises(ContextClosedError) as caught:
            await db_session(place.db)
        assert caught.value.ended_s is not None
        assert "s ago" in str(caught.value)
        await transactional(write)(place.db, "its own")

    @transactional
    async def unit() -> asyncio.Task[None]:
        await write(place.db, "unit")
        return asyncio.create_task(late())

    task = await unit()
    ended.set()
    await task
    assert await place.texts() == ["unit", "its own"]
