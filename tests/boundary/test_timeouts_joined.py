"""``timeout_s`` of joined and nested calls, limits inside limits, hooks and early commits. On both backends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from tests.boundary.faces import BOTH_FACES, Run, is_postgres
from tests.boundary.test_timeouts import ENOUGH_S, LATER_S, RULES, SOON_S, for_ever
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    TransactionTimeoutError,
    UnexpectedRollbackError,
    atomic,
    new_context,
    transactional,
)

pytestmark = pytest.mark.usefixtures("connected")


def soon(propagation: str = "required", **options: Any) -> Any:
    """Make a unit; a nested one, which may lose only what was finished, has time to finish it."""
    timeout_s = ENOUGH_S if propagation == "nested" else SOON_S
    return transactional(
        propagation=propagation, timeout_s=timeout_s, name="close_books", **options
    )


def enough(**options: Any) -> Any:
    return transactional(timeout_s=ENOUGH_S, **options)


class TestJoined:
    @BOTH_FACES
    @pytest.mark.parametrize("how", ["required", "mandatory", "nested"])
    async def test_has_its_own_limit_and_dooms_what_it_joined(
        self, place: Place, run: Run, how: str
    ) -> None:
        """Scenario: it is cut short, and its caller swallows that.
        Outcome: what it joined can't commit; of a nested call that is its own savepoint."""

        async def body() -> None:
            await write(place.db, "lost")
            await for_ever()

        async def unit() -> None:
            await write(place.db, "before")
            with pytest.raises(TransactionTimeoutError) as caught:
                await run(soon(how), body)
            assert caught.value.function == "close_books"
            assert caught.value.timeout_s < LATER_S
            errors.append(caught.value)
            if how == "nested":
                await write(place.db, "after")
            else:
                with pytest.raises(UnexpectedRollbackError, match="close_books"):
                    await write(place.db, "refused")

        errors: list[BaseException] = []
        if how == "nested":
            await transactional(timeout_s=LATER_S)(unit)()
            assert await place.texts() == ["before", "after"]
            return
        with pytest.raises(UnexpectedRollbackError) as caught:
            await transactional(timeout_s=LATER_S)(unit)()
        assert caught.value.__cause__ is errors[0]
        assert caught.value.culprit == "close_books"
        assert await place.texts() == []

    @BOTH_FACES
    @pytest.mark.parametrize("of_joined", RULES)
    @pytest.mark.parametrize("of_boundary", RULES)
    async def test_no_rule_commits_what_ran_out_of_time(
        self, place: Place, run: Run, of_joined: str, of_boundary: str
    ) -> None:
        async def body() -> None:
            await for_ever()

        with pytest.raises(TransactionTimeoutError) as caught:
            async with transactional(**RULES[of_boundary]):
                await write(place.db, "lost")
                await run(soon(**RULES[of_joined]), body)
        assert caught.value.function == "close_books"
        assert await place.texts() == []

    @BOTH_FACES
    @pytest.mark.parametrize("of_joined", RULES)
    @pytest.mark.parametrize("swallowed", [True, False])
    async def test_nor_does_a_users_exception_after_the_deadline(
        self, place: Place, run: Run, of_joined: str, swallowed: bool
    ) -> None:
        async def body() -> None:
            try:
                await for_ever()
            except asyncio.CancelledError:
                raise Boom from None

        with pytest.raises(UnexpectedRollbackError if swallowed else Boom):
            async with transactional(no_rollback_for=Boom):
                await write(place.db, "lost")
                with contextlib.suppress(Boom) if swallowed else contextlib.nullcontext():
                    await run(soon(**RULES[of_joined]), body)
        assert await place.texts() == []

    @BOTH_FACES
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("error", [TransactionTimeoutError, Boom])
    async def test_nested_one_keeps_nothing_whatever_its_rules(
        self, place: Place, run: Run, rule: str, error: type[Exception]
    ) -> None:
        async def body() -> None:
            await write(place.db, "lost")
            try:
                await for_ever()
            except asyncio.CancelledError:
                if error is Boom:
                    raise Boom from None
                raise

        async with transactional():
            await write(place.db, "before")
            with pytest.raises(error):
                await run(soon("nested", **RULES[rule]), body)
            await write(place.db, "after")
        assert await place.texts() == ["before", "after"]

    @BOTH_FACES
    @pytest.mark.parametrize("how", ["required", "nested"])
    @pytest.mark.parametrize("by", ["swallowed cancellation", "blocked loop"])
    async def test_late_return_is_over_time(
        self, place: Place, run: Run, how: str, by: str
    ) -> None:
        async def body() -> None:
            if by == "blocked loop":
                time.sleep(1.2 * ENOUGH_S)
            else:
                with contextlib.suppress(asyncio.CancelledError):
                    await for_ever()

        with pytest.raises(TransactionTimeoutError, match="close_books"):
            async with transactional():
                await write(place.db, "lost")
                await run(soon(how), body)
        assert await place.texts() == []

    @BOTH_FACES
    async def test_longer_one_than_its_boundarys_is_bounded_by_that(
        self, place: Place, run: Run
    ) -> None:
        async def body() -> None:
            await write(place.db, "lost")
            await for_ever()

        with pytest.raises(TransactionTimeoutError) as caught:
            async with transactional(timeout_s=SOON_S, name="import_day"):
                await run(transactional(timeout_s=LATER_S), body)
        assert caught.value.function == "import_day"
        assert await place.texts() == []


class TestUnitInside:
    @BOTH_FACES
    @pytest.mark.parametrize("way", ["requires_new", "new_context"])
    async def test_its_limit_is_its_own(self, place: Place, run: Run, way: str) -> None:
        async def body() -> None:
            if is_postgres(place):  # SQLite has one writer
                await write(place.db, "lost")
            await for_ever()

        unit = soon(way) if way == "requires_new" else new_context(timeout_s=SOON_S)
        async with transactional(timeout_s=LATER_S):
            await write(place.db, "before")
            with pytest.raises(TransactionTimeoutError):
                await run(unit, body)
            await write(place.db, "after")
        assert await place.texts() == ["before", "after"]

    @BOTH_FACES
    async def test_callers_limit_bounds_it_too(self, place: Place, run: Run) -> None:
        async def body() -> None:
            await write(place.db, "lost")
            await for_ever()

        with pytest.raises(TransactionTimeoutError) as caught:
            async with transactional(timeout_s=SOON_S, name="import_day"):
                await run(new_context(timeout_s=LATER_S), body)
        assert caught.value.function == "import_day"
        assert await place.texts() == []

    @BOTH_FACES
    async def test_two_tasks_in_one_object_have_a_deadline_each(
        self, place: Place, run: Run
    ) -> None:
        async def quick() -> None:
            await write(place.db, "kept")

        unit = enough()
        slow = asyncio.create_task(run(unit, for_ever))
        await asyncio.sleep(0)
        await run(unit, quick)
        with pytest.raises(TransactionTimeoutError):
            await slow
        await run(unit, quick)
        assert await place.texts() == ["kept", "kept"]

    @BOTH_FACES
    async def test_atomic_block_is_rolled_back_whole(self, place: Place, run: Run) -> None:
        async def body() -> None:
            async with atomic(place.db):
                await write(place.db, "kept")
            async with atomic(place.db):
                await write(place.db, "lost")
                await for_ever()

        with pytest.raises(TransactionTimeoutError):
            await run(enough(), body)
        assert await place.texts() == ["kept"]
