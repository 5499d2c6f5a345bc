"""after_* hooks that fail after a commit: all run, then one AfterCommitError. On both backends.

What fails after a rollback is in ``test_hooks_failures_after_rollback``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    AfterCommitError,
    TxkitError,
    after_commit,
    after_completion,
    atomic,
    new_context,
    transactional,
)


def failing(error: Exception, *, is_async: bool = True) -> Callable[..., object]:
    async def fails(*_: str) -> None:
        await asyncio.sleep(0)
        raise error

    def fails_at_once(*_: str) -> None:
        raise error

    return fails if is_async else fails_at_once


class TestEndOfUnit:
    async def test_all_run_and_one_error_holds_the_result(self, place: Place) -> None:
        told: list[str] = []
        first, second, third = Boom("first"), KeyError("second"), ValueError("third")

        @transactional
        async def unit() -> str:
            await write(place.db, "kept")
            after_commit(failing(first))
            after_commit(lambda: told.append("a"))
            after_completion(failing(second, is_async=False))
            after_completion(told.append)
            after_commit(failing(third, is_async=False))
            after_commit(lambda: told.append("b"))
            return "result"

        with pytest.raises(AfterCommitError, match="is committed") as caught:
            await unit()
        error = caught.value
        assert told == ["a", "committed", "b"]
        assert error.exceptions == (first, second, third)
        assert error.result == "result"
        assert error.function.endswith("unit")
        assert isinstance(error, ExceptionGroup)
        assert isinstance(error, TxkitError)
        assert await place.texts() == ["kept"]

    @pytest.mark.parametrize("unit", [transactional, new_context, atomic])
    async def test_every_decorated_call_gives_its_result(
        self, place: Place, unit: Callable
    ) -> None:
        @unit
        async def function() -> list[int]:
            await write(place.db, "kept")
            after_commit(failing(Boom()))
            return [1]

        with pytest.raises(AfterCommitError) as caught:
            await function()
        assert caught.value.result == [1]
        assert caught.value.function.endswith("function")

    async def test_atomic_call_inside_a_boundary_gives_its_result(self, place: Place) -> None:
        @atomic(place.db)
        async def step() -> list[int]:
            await write(place.db, "kept")
            after_commit(failing(Boom()))
            return [1]

        async with transactional():
            with pytest.raises(AfterCommitError) as caught:
                await step()
            assert caught.value.result == [1]
            assert caught.value.function.endswith("step")
            assert await place.texts() == ["kept"]
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]

    @pytest.mark.parametrize("unit", [transactional, new_context, atomic])
    async def test_block_has_no_result(self, place: Place, unit: Callable) -> None:
        with pytest.raises(AfterCommitError) as caught:
            async with unit():
                await write(place.db, "kept")
                after_commit(failing(Boom()))
        assert caught.value.result is None
        assert "test_block_has_no_result" in caught.value.function

    async def test_error_of_a_block_leaves_the_boundary_unchanged(self, place: Place) -> None:
        """It is an exception of the boundary's body: what the boundary did is rolled back."""
        seen: list[AfterCommitError] = []
        with pytest.raises(AfterCommitError) as caught:
            async with transactional():
                await write(place.db, "lost")
                try:
                    async with atomic(place.db, current_transaction="commit"):
                        await write(place.db, "kept")
                        after_commit(failing(Boom()))
                except AfterCommitError as error:
                    seen.append(error)
                    await write(place.db, "lost too")
                    raise
        assert caught.value is seen[0]
        assert await place.texts() == ["lost", "kept"]


class TestGroup:
    async def run(self, place: Place) -> str:
        @transactional(name="pay")
        async def unit() -> str:
            await write(place.db, "kept")
            after_commit(failing(Boom("a")))
            after_commit(failing(KeyError("b")))
            return "result"

        return await unit()

    async def test_except_star_takes_it_apart(self, place: Place) -> None:
        seen: list[BaseException] = []
        try:
            await self.run(place)
        except* Boom as part:
            seen.append(part)
        except* KeyError as part:
            seen.append(part)
        assert [type(part) for part in seen] == [AfterCommitError, AfterCommitError]
        assert [str(part.exceptions[0]) for part in seen] == ["a", "'b'"]  # type: ignore[attr-defined]

    async def test_parts_keep_function_and_result(self, place: Place) -> None:
        with pytest.raises(AfterCommitError) as caught:
            await self.run(place)
        error = caught.value
        match, rest = error.split(Boom)
        parts = [match, rest, error.subgroup(KeyError), error.derive([Boom()])]
        for part in parts:
            assert isinstance(part, AfterCommitError)
            assert (part.function, part.result) == ("pay", "result")
            assert len(part.exceptions) == 1

    async def test_except_star_for_another_class_lets_it_pass_whole(self, place: Place) -> None:
        with pytest.raises(AfterCommitError) as caught:
            try:
                await self.run(place)
            except* OSError:
                pytest.fail("it holds none")
        assert len(caught.value.exceptions) == 2
        assert caught.value.result == "result"


class TestExceptionLeaves:
    async def test_users_exception_wins_and_carries_the_failures(self, place: Place) -> None:
        told: list[str] = []

        @transactional(no_rollback_for=Boom)
        async def unit() -> None:
            await write(place.db, "kept")
            after_commit(failing(KeyError("first")))
            after_completion(failing(ValueError("second")))
            after_completion(told.append)
            raise Boom("the user's")

        with pytest.raises(Boom, match="the user's") as caught:
            await unit()
        first, second = caught.value.__notes__
        assert "KeyError: 'first'" in first
        assert "ValueError: second" in second
        assert "committed" in first
        assert told == ["committed"]
        assert await place.texts() == ["kept"]


async def awaits_a_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


async def test_hook_that_awaited_a_cancelled_task_stops_no_other(place: Place) -> None:
    """Scenario: a hook raises CancelledError, and nobody cancelled the unit.
    Outcome: the hooks behind it run; it does not pass in silence."""
    told: list[str] = []
    with pytest.raises((AfterCommitError, asyncio.CancelledError)):
        async with transactional():
            await write(place.db, "kept")
            after_commit(awaits_a_cancelled_task)
            after_commit(lambda: told.append("after"))
            after_completion(told.append)
    assert told == ["after", "committed"]
    assert await place.texts() == ["kept"]


async def test_robust_one_that_awaited_a_cancelled_task_is_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with transactional():
        await write(place.db, "kept")
        after_commit(awaits_a_cancelled_task, robust=True)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_slow_hook_is_not_in_the_time_limit(place: Place) -> None:
    """``timeout_s`` ends when COMMIT is sent."""
    told: list[str] = []
    loop = asyncio.get_running_loop()

    @transactional(timeout_s=1)
    async def unit() -> str:
        started = loop.time()

        async def slow() -> None:
            while loop.time() < started + 1.1:
                await asyncio.sleep(0.01)
            told.append("ran")

        await write(place.db, "kept")
        after_commit(slow)
        return "result"

    assert await unit() == "result"
    assert told == ["ran"]
