"""``timeout_s`` over waits that are not the database's. On both backends.

What is to run out of time waits for ever. Where something has to be reached before that,
the limit is ``ENOUGH_S`` and the connection is there; else it is ``SOON_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import anyio
import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import TransactionTimeoutError, before_commit, db_session, new_context, transactional

pytestmark = pytest.mark.usefixtures("connected")

SOON_S, ENOUGH_S, LATER_S = 0.05, 0.5, 60.0
UNITS: dict[str, Any] = {
    "required": transactional(timeout_s=SOON_S, name="import_day"),
    "requires_new": transactional(propagation="requires_new", timeout_s=SOON_S, name="import_day"),
    "nested": transactional(propagation="nested", timeout_s=SOON_S, name="import_day"),
    "new_context": new_context(timeout_s=SOON_S, name="import_day"),
}
EVERY_UNIT = pytest.mark.parametrize("unit", UNITS)


async def for_ever() -> None:
    await asyncio.Event().wait()


@BOTH_FACES
@EVERY_UNIT
async def test_wait_is_cut_short_and_the_unit_rolled_back(
    place: Place, run: Run, unit: str
) -> None:
    async def body() -> None:
        await write(place.db, "lost")
        (await db_session(place.db)).add(Note(text="lost too"))
        await for_ever()

    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(TransactionTimeoutError, match="import_day") as caught:
        await run(UNITS[unit], body)
    assert SOON_S <= loop.time() - start < 1
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.function, error.timeout_s) == ("import_day", SOON_S)
    assert await place.texts() == []
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    await asyncio.sleep(0)  # nothing is left that would cancel us now


@BOTH_FACES
@EVERY_UNIT
async def test_swallowed_cancellation_is_over_time_all_the_same(
    place: Place, run: Run, unit: str
) -> None:
    async def body() -> str:
        await write(place.db, "lost")
        with contextlib.suppress(asyncio.CancelledError):
            await for_ever()
        return "done"

    with pytest.raises(TransactionTimeoutError):
        await run(UNITS[unit], body)
    assert await place.texts() == []


@BOTH_FACES
@EVERY_UNIT
async def test_blocked_event_loop_is_over_time_all_the_same(
    place: Place, run: Run, unit: str
) -> None:
    async def body() -> None:
        await write(place.db, "lost")
        time.sleep(2 * SOON_S)

    with pytest.raises(TransactionTimeoutError):
        await run(UNITS[unit], body)
    assert await place.texts() == []


RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "no_rollback_for": {"no_rollback_for": Exception},
    "outcome": {"outcome": lambda *_: True},
}


@BOTH_FACES
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("how", ["required", "nested"])
async def test_users_exception_after_the_deadline_leaves_unchanged(
    place: Place, run: Run, rule: str, how: str
) -> None:
    """With a note; and rolled back, whatever the rules say: the time was over."""

    async def body() -> None:
        try:
            await write(place.db, "lost")
            await for_ever()
        except asyncio.CancelledError:
            raise error from None

    error = Boom()
    unit = transactional(propagation=how, timeout_s=SOON_S, name="import_day", **RULES[rule])
    with pytest.raises(Boom) as caught:
        await run(unit, body)
    assert caught.value is error
    assert any("import_day" in note and "timeout_s=0.05" in note for note in error.__notes__)
    assert await place.texts() == []


@BOTH_FACES
@pytest.mark.parametrize("rule", RULES)
async def test_no_rule_commits_what_ran_out_of_time(place: Place, run: Run, rule: str) -> None:
    async def body() -> None:
        before_commit(lambda: told.append("it does not come to that"))
        await write(place.db, "lost")
        await for_ever()

    told: list[str] = []
    with pytest.raises(TransactionTimeoutError) as caught:
        await run(transactional(timeout_s=SOON_S, **RULES[rule]), body)
    assert not hasattr(caught.value, "__notes__")
    assert not told
    assert await place.texts() == []


class TestSomebodyElsesCancellation:
    """Not mistaken for the limit, whoever it comes from."""

    @BOTH_FACES
    async def test_outer_timeout(self, place: Place, run: Run) -> None:
        async def body() -> None:
            await write(place.db, "lost")
            await for_ever()

        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(SOON_S):
                await run(transactional(timeout_s=LATER_S), body)
        assert type(caught.value) is TimeoutError
        assert await place.texts() == []

    @BOTH_FACES
    async def test_inner_timeout_is_the_bodys_own(self, place: Place, run: Run) -> None:
        async def body() -> None:
            await write(place.db, "kept")
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(SOON_S):
                    await for_ever()
            assert type(caught.value) is TimeoutError

        await run(transactional(timeout_s=LATER_S), body)
        assert await place.texts() == ["kept"]

    @BOTH_FACES
    async def test_cancelled_task(self, place: Place, run: Run) -> None:
        async def body() -> None:
            await write(place.db, "lost")
            ready.set()
            await for_ever()

        ready = asyncio.Event()
        task = asyncio.create_task(run(transactional(timeout_s=LATER_S), body))
        await ready.wait()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert await place.texts() == []

    @BOTH_FACES
    async def test_cancelled_task_that_is_past_its_limit_as_well(
        self, place: Place, run: Run
    ) -> None:
        """Scenario: a blocked loop lets the deadline pass, and then the task is cancelled.
        Outcome: the cancellation leaves, nothing is lost of it."""

        async def body() -> None:
            await write(place.db, "lost")
            task.cancel()
            time.sleep(ENOUGH_S)
            await for_ever()

        async def unit() -> None:
            await run(transactional(timeout_s=ENOUGH_S), body)

        task = asyncio.create_task(unit())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await place.texts() == []

    @BOTH_FACES
    async def test_anyio_scope_around_it(self, place: Place, run: Run) -> None:
        async def body() -> None:
            await write(place.db, "lost")
            await anyio.sleep_forever()

        with anyio.move_on_after(SOON_S) as scope:
            await run(transactional(timeout_s=LATER_S), body)
        assert scope.cancelled_caught
        with anyio.move_on_after(LATER_S) as scope:
            with pytest.raises(TransactionTimeoutError):
                await run(transactional(timeout_s=SOON_S), body)
        assert not scope.cancelled_caught
        assert await place.texts() == []

    @BOTH_FACES
    async def test_anyio_scope_inside_it(self, place: Place, run: Run) -> None:
        async def body() -> None:
            await write(place.db, "a")
            with anyio.move_on_after(SOON_S):
                await anyio.sleep_forever()
            await write(place.db, "b")

        await run(transactional(timeout_s=LATER_S), body)
        assert await place.texts() == ["a", "b"]

    async def test_anyio_task_group_with_children(self, place: Place) -> None:
        """The children of the body are cancelled with it, and the one error leaves."""

        @transactional(timeout_s=SOON_S)
        async def unit() -> None:
            await write(place.db, "lost")
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                group.start_soon(anyio.sleep_forever)

        with pytest.raises(TransactionTimeoutError):
            await unit()
        assert await place.texts() == []
