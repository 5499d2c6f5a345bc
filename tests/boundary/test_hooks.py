"""Hooks of a unit as a whole: which run after which end, in which order, when. On both backends."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    atomic,
    new_context,
    set_rollback_only,
    transactional,
)
from txkit._core.place import current

Face = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]


async def decorated(body: Callable[[], Awaitable[object]]) -> object:
    @transactional
    async def unit() -> object:
        return await body()

    return await unit()


async def block(body: Callable[[], Awaitable[object]]) -> object:
    async with transactional():
        return await body()


async def context(body: Callable[[], Awaitable[object]]) -> object:
    return await new_context(functools.partial(body))()  # type: ignore[arg-type]


async def atomic_function(body: Callable[[], Awaitable[object]]) -> object:
    @atomic
    async def unit() -> object:
        return await body()

    return await unit()


async def atomic_block(body: Callable[[], Awaitable[object]]) -> object:
    async with atomic:
        return await body()


both_faces = pytest.mark.parametrize("face", [decorated, block])
every_face = pytest.mark.parametrize(
    "face", [decorated, block, context, atomic_function, atomic_block]
)


class TestOutcome:
    @every_face
    async def test_return_runs_before_and_after_commit(self, place: Place, face: Face) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "kept")
            assert told == []

        await face(body)
        assert told == committed("unit")
        assert await place.texts() == ["kept"]

    @every_face
    async def test_exception_runs_after_rollback(self, place: Place, face: Face) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "lost")
            raise Boom

        with pytest.raises(Boom) as caught:
            await face(body)
        assert told == rolled_back("unit")
        assert not hasattr(caught.value, "__notes__")

    @every_face
    async def test_own_request_runs_after_rollback_and_returns(
        self, place: Place, face: Face
    ) -> None:
        told: list[str] = []

        async def body() -> str:
            watch(told, "unit")
            await write(place.db, "lost")
            set_rollback_only()
            return "result"

        assert await face(body) == "result"
        assert told == rolled_back("unit")

    @every_face
    async def test_joined_failure_runs_after_rollback(self, place: Place, face: Face) -> None:
        told: list[str] = []

        @transactional
        async def culprit() -> None:
            raise Boom

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "lost")
            with pytest.raises(Boom):
                await culprit()

        with pytest.raises(UnexpectedRollbackError):
            await face(body)
        assert told == rolled_back("unit")

    async def test_rules_that_commit_with_an_exception_run_after_commit(self, place: Place) -> None:
        told: list[str] = []

        @transactional(no_rollback_for=Boom)
        async def unit() -> None:
            watch(told, "unit")
            await write(place.db, "kept")
            raise Boom

        with pytest.raises(Boom) as caught:
            await unit()
        assert told == committed("unit")
        assert not hasattr(caught.value, "__notes__")
        assert await place.texts() == ["kept"]

    async def test_result_that_says_failure_runs_after_rollback(self, place: Place) -> None:
        told: list[str] = []

        @transactional(outcome=lambda result, _: bool(result))
        async def unit(result: bool) -> bool:
            watch(told, "unit")
            await write(place.db, str(result))
            return result

        assert await unit(False) is False
        assert told == rolled_back("unit")
        told.clear()
        assert await unit(True) is True
        assert told == committed("unit")
        assert await place.texts() == ["True"]

    async def test_outcome_rule_that_raises_runs_after_rollback(self, place: Place) -> None:
        told: list[str] = []

        def rule(result: object, error: BaseException | None) -> bool:
            raise KeyError("rule")

        with pytest.raises(KeyError, match="rule"):
            async with transactional(outcome=rule):
                watch(told, "unit")
                await write(place.db, "lost")
        assert told == rolled_back("unit")

    @every_face
    @pytest.mark.parametrize("fails", [False, True])
    async def test_unit_that_used_no_transaction_counts_as_its_end_went(
        self, face: Face, fails: bool
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            if fails:
                raise Boom

        if fails:
            with pytest.raises(Boom):
                await face(body)
        else:
            await face(body)
        assert told == (rolled_back("unit") if fails else committed("unit"))

    async def test_hooks_of_one_unit_do_not_run_after_the_next(self, place: Place) -> None:
        told: list[str] = []
        unit = transactional()
        for name in ("first", "second"):
            async with unit:
                watch(told, name)
                await write(place.db, name)
        async with unit:
            await write(place.db, "third")
        assert told == [*committed("first"), *committed("second")]


async def test_no_hooks_no_ledger(place: Place) -> None:
    """What is not used costs nothing: not even the list is made."""
    async with transactional():
        await write(place.db, "a")
        async with atomic(place.db, current_transaction="savepoint"):
            await write(place.db, "b")
        here = current()
        assert here is not None
        assert here.context.ledger is None
