"""Tasks that come while the user of a context is in the middle of something, or has ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    ConcurrentSessionUseError,
    ContextClosedError,
    UnexpectedRollbackError,
    after_commit,
    after_rollback,
    atomic,
    before_commit,
    commit_db_session,
    db_session,
    new_context,
    transactional,
)

OWN = pytest.mark.parametrize(
    "kind",
    [transactional, atomic, transactional(propagation="nested")],
    ids=["transactional", "atomic", "nested"],
)


class TestHalfOfACall:
    """A call that had joined goes on after the end of what it joined."""

    @OWN
    async def test_its_other_half_is_no_unit_of_its_own(self, place: Place, kind: Any) -> None:
        go_on = asyncio.Event()

        @transactional
        async def credit() -> None:
            await write(place.db, "credit")

        @kind
        async def move() -> None:
            await transactional(write)(place.db, "debit")
            joined.set()
            await go_on.wait()
            await credit()

        joined = asyncio.Event()

        @transactional
        async def handler() -> None:
            left.append(asyncio.create_task(move()))
            await joined.wait()
            raise Boom

        left: list[asyncio.Task[None]] = []
        with pytest.raises(Boom):
            await handler()
        go_on.set()
        with pytest.raises(ContextClosedError):
            await left[0]
        assert await place.texts() == []

    async def test_unit_of_its_own_is_one_all_the_same(self, place: Place) -> None:
        go_on, joined = asyncio.Event(), asyncio.Event()

        @transactional
        async def move() -> None:
            joined.set()
            await go_on.wait()
            await new_context(write)(place.db, "audit")

        left: list[asyncio.Task[None]] = []
        with pytest.raises(ConcurrentSessionUseError):
            async with transactional():
                left.append(asyncio.create_task(move()))
                await joined.wait()
        go_on.set()
        await left[0]
        assert await place.texts() == ["audit"]

    async def test_task_that_was_made_inside_of_one_has_units_of_its_own(
        self, place: Place
    ) -> None:
        go_on = asyncio.Event()

        async def background() -> None:
            await go_on.wait()
            await transactional(write)(place.db, "its own")

        @transactional
        async def joined() -> None:
            left.append(asyncio.create_task(background()))

        left: list[asyncio.Task[None]] = []
        async with transactional():
            await joined()
        go_on.set()
        await left[0]
        assert await place.texts() == ["its own"]


Register = Callable[[Any], Any]


class TestEnding:
    @BOTH_FACES
    async def test_task_of_the_last_line_is_a_unit_of_its_own(self, place: Place, run: Run) -> None:
        """Scenario: its first step comes while COMMIT is being sent."""
        left: list[asyncio.Task[None]] = []

        async def body() -> None:
            await write(place.db, "unit")
            left.append(asyncio.create_task(transactional(write)(place.db, "background")))

        await run(transactional(), body)
        await left[0]
        assert await place.texts() == ["unit", "background"]

    @pytest.mark.parametrize("register", [after_commit, after_rollback])
    async def test_task_that_comes_while_hooks_run_finds_no_session(
        self, place: Place, register: Register
    ) -> None:
        tells, came = asyncio.Event(), asyncio.Event()

        async def late() -> None:
            await tells.wait()
            try:
                await write(place.db, "never")
            finally:
                came.set()

        async def hook() -> None:
            tells.set()
            await came.wait()

        @transactional
        async def unit() -> None:
            left.append(asyncio.create_task(late()))
            register(hook)
            await write(place.db, "unit")
            if register is after_rollback:
                raise Boom

        left: list[asyncio.Task[None]] = []
        if register is after_rollback:
            with pytest.raises(Boom):
                await unit()
        else:
            await unit()
        with pytest.raises(ContextClosedError):
            await left[0]
        assert await place.texts() == ([] if register is after_rollback else ["unit"])

    @pytest.mark.parametrize("end", ["boundary", "atomic", "commit_db_session", "session.commit"])
    async def test_half_of_a_task_that_a_hook_started_is_not_committed(
        self, place: Place, end: str
    ) -> None:
        go_on, half = asyncio.Event(), asyncio.Event()
        left: list[asyncio.Task[None]] = []

        async def worker() -> None:
            await write(place.db, "half")
            half.set()
            await go_on.wait()
            await write(place.db, "other half")

        async def hook() -> None:
            left.append(asyncio.create_task(worker()))
            await half.wait()

        async def unit() -> None:
            async with transactional():
                if end == "atomic":
                    async with atomic(place.db):
                        before_commit(hook)
                        await write(place.db, "unit")
                    return
                before_commit(hook)
                await write(place.db, "unit")
                if end == "commit_db_session":
                    await commit_db_session(place.db)
                elif end == "session.commit":
                    await (await db_session(place.db)).commit()

        with pytest.raises(ConcurrentSessionUseError):
            await unit()
        assert await place.texts() == []
        go_on.set()
        with pytest.raises(ContextClosedError):
            await left[0]


class TestAtWork:
    async def test_child_does_not_come_between(self, place: Place) -> None:
        """Scenario: the user does not wait for its child, but for its connection."""

        @transactional
        async def unit() -> None:
            child = asyncio.create_task(write(place.db, "never"))
            await write(place.db, "unit")
            with pytest.raises(ConcurrentSessionUseError):
                await child

        await unit()
        assert (await place.texts())[-1] == "unit"

    async def test_child_that_was_made_before_its_parent_came_is_let_in(self, place: Place) -> None:
        async def early() -> None:
            go_on = asyncio.Event()

            async def late_child() -> None:
                await go_on.wait()
                await write(place.db, "child")

            child = asyncio.create_task(late_child())
            await write(place.db, "parent")
            go_on.set()
            await child

        @transactional
        async def unit() -> None:
            await asyncio.create_task(early())

        await unit()
        assert await place.texts() == ["parent", "child"]

    @pytest.mark.parametrize("nested", [False, True], ids=["transaction", "savepoint"])
    async def test_transaction_of_anothers_is_not_rolled_back(
        self, place: Place, nested: bool
    ) -> None:
        @transactional
        async def unit() -> None:
            session = await db_session(place.db)
            transaction = await (session.begin_nested() if nested else session.begin())
            go_on, uses = asyncio.Event(), asyncio.Event()

            async def holder() -> None:
                await write(place.db, "kept")
                uses.set()
                await go_on.wait()

            task = asyncio.create_task(holder())
            await uses.wait()
            for end in (transaction.rollback, transaction.commit):
                with pytest.raises(ConcurrentSessionUseError):
                    await asyncio.create_task(end())
            go_on.set()
            await task
            await transaction.commit()

        await unit()
        assert await place.texts() == ["kept"]

    @OWN
    async def test_block_that_fails_while_a_child_works_dooms_the_unit(
        self, place: Place, kind: Any
    ) -> None:
        go_on, uses = asyncio.Event(), asyncio.Event()

        async def child() -> None:
            await write(place.db, "before")
            uses.set()
            await go_on.wait()
            await write(place.db, "after")

        @transactional
        async def unit() -> None:
            @kind
            async def fails() -> None:
                left.append(asyncio.create_task(child()))
                await uses.wait()
                raise Boom

            with pytest.raises(Boom):
                await fails()
            go_on.set()
            await asyncio.wait(left)

        left: list[asyncio.Task[None]] = []
        with pytest.raises(UnexpectedRollbackError):
            await unit()
        await asyncio.gather(*left, return_exceptions=True)
        assert await place.texts() == []


async def test_late_object_of_a_session_is_closed(place: Place) -> None:
    async with transactional():
        session = await db_session(place.db)
        await write(place.db, "kept")
    for way in (session.commit, session.begin, session.begin_nested):
        with pytest.raises(ContextClosedError):
            await way()
    with pytest.raises(ContextClosedError):
        session.add(object())
    await session.close()
    assert await place.texts() == ["kept"]
