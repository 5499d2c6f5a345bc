"""Decorated async generators inside a context: joined, atomic, nested; and a boundary that is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import watch
from txkit import (
    AtomicControlError,
    ConcurrentSessionUseError,
    ContextClosedError,
    Database,
    TransactionNotAllowedError,
    TransactionRequiredError,
    TransactionTimeoutError,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    in_transaction,
    new_context,
    run_in_new_ctx,
    transactional,
)

SEALED = pytest.mark.parametrize(
    "kind", [atomic, transactional(propagation="nested")], ids=["atomic", "nested"]
)


async def two(db: Database, text: str = "step") -> AsyncIterator[int]:
    for number in range(2):
        await write(db, f"{text} {number}")
        yield number


async def fails(db: Database) -> AsyncIterator[int]:
    await write(db, "lost")
    yield 0
    raise Boom


class TestJoined:
    async def test_it_shares_the_session_and_ends_nothing(self, place: Place) -> None:
        @transactional
        async def unit() -> None:
            await write(place.db, "unit")
            async for _ in transactional(two)(place.db):
                assert await place.texts() == []
                await write(place.db, "between")
            await write(place.db, "after")

        await unit()
        written = ["unit", "step 0", "between", "step 1", "between", "after"]
        assert await place.texts() == written

    async def test_break_marks_nothing(self, place: Place) -> None:
        @transactional
        async def unit() -> None:
            async for _ in transactional(two)(place.db):
                break
            await write(place.db, "kept")
            await asyncio.sleep(0)
            await write(place.db, "kept too")

        await unit()
        assert await place.texts() == ["step 0", "kept", "kept too"]

    async def test_aclose_marks_nothing(self, place: Place) -> None:
        @transactional
        async def unit() -> None:
            async with aclosing(transactional(two)(place.db)) as rows:
                await anext(rows)

        await unit()
        assert await place.texts() == ["step 0"]

    async def test_exception_out_of_it_marks_the_unit(self, place: Place) -> None:
        @transactional
        async def unit() -> None:
            with pytest.raises(Boom):
                async for _ in transactional(fails)(place.db):
                    pass

        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit()
        assert caught.value.culprit.endswith("fails")
        assert isinstance(caught.value.__cause__, Boom)
        assert await place.texts() == []

    async def test_its_rules_may_keep_the_unit(self, place: Place) -> None:
        @transactional
        async def unit() -> None:
            with pytest.raises(Boom):
                async for _ in transactional(no_rollback_for=Boom)(fails)(place.db):
                    pass

        await unit()
        assert await place.texts() == ["lost"]

    async def test_mandatory_and_never(self, place: Place) -> None:
        with pytest.raises(TransactionRequiredError):
            await anext(transactional(propagation="mandatory")(two)(place.db))
        async with transactional():
            with pytest.raises(TransactionNotAllowedError):
                await anext(transactional(propagation="never")(two)(place.db))
            async with aclosing(transactional(propagation="mandatory")(two)(place.db)) as rows:
                await anext(rows)
        assert await place.texts() == ["step 0"]

    async def test_after_the_end_of_its_boundary_it_finds_it_closed(self, place: Place) -> None:
        async with transactional():
            rows = transactional(two)(place.db)
            await anext(rows)
        with pytest.raises(ContextClosedError):
            await anext(rows)
        assert await place.texts() == ["step 0"]

    async def test_unit_decides_at_the_first_step(self, place: Place) -> None:
        rows = transactional(two)(place.db)
        async with transactional():
            await anext(rows)
        assert await place.texts() == ["step 0"]


class TestSealed:
    @SEALED
    async def test_exhausted_it_is_a_part_or_durable(self, place: Place, kind: Any) -> None:
        @transactional
        async def unit() -> None:
            async for _ in kind(two)(place.db):
                with pytest.raises(AtomicControlError):
                    await commit_db_session(place.db)
            raise Boom

        with pytest.raises(Boom):
            await unit()
        assert await place.texts() == (["step 0", "step 1"] if kind is atomic else [])

    @SEALED
    async def test_closed_early_it_loses_its_own_alone(self, place: Place, kind: Any) -> None:
        @transactional
        async def unit() -> None:
            await write(place.db, "unit")
            await commit_db_session(place.db)
            async with aclosing(kind(two)(place.db)) as rows:
                await anext(rows)
            await write(place.db, "after")

        await unit()
        assert await place.texts() == ["unit", "after"]

    @SEALED
    async def test_failed_it_loses_its_own_alone(self, place: Place, kind: Any) -> None:
        told: list[str] = []

        @transactional
        async def unit() -> None:
            with pytest.raises(Boom):
                async for _ in kind(fails)(place.db):
                    watch(told, "stream")
            await write(place.db, "after")

        await unit()
        assert await place.texts() == ["after"]
        assert told == ["stream: after rollback", "stream: rolled_back"]

    @SEALED
    @pytest.mark.parametrize("steps", [0, 5])
    async def test_left_to_the_collector_it_dooms_the_unit(
        self, place: Place, kind: Any, steps: int
    ) -> None:
        """Scenario: who closes it is another task, while the unit goes on or has ended."""

        @transactional
        async def unit() -> None:
            async for _ in kind(two)(place.db):
                break
            for _ in range(steps):
                await asyncio.sleep(0)

        with pytest.raises(UnexpectedRollbackError, match="aclosing"):
            await unit()
        await asyncio.sleep(0)
        assert await place.texts() == []


class TestSuspending:
    async def test_new_context_commits_beside_the_unit(self, place: Place) -> None:
        @transactional(read_only=True)
        async def unit() -> None:
            session = await db_session(place.db)
            async for _ in new_context(two)(place.db):
                assert await db_session(place.db) is session
            assert await place.texts() == ["step 0", "step 1"]
            raise Boom

        with pytest.raises(Boom):
            await unit()
        assert await place.texts() == ["step 0", "step 1"]


class TestLimit:
    async def test_time_between_the_steps_counts(self, place: Place) -> None:
        @transactional
        async def connect() -> None:
            await (await db_session(place.db)).connection()

        await connect()
        rows = transactional(timeout_s=0.5)(two)(place.db)
        await anext(rows)
        time.sleep(0.5)
        with pytest.raises(TransactionTimeoutError):
            await anext(rows)
        assert await place.texts() == []

    async def test_step_is_cut_short(self, place: Place) -> None:
        @transactional(timeout_s=0.5)
        async def hangs() -> AsyncIterator[int]:
            await write(place.db, "lost")
            yield 1
            await asyncio.Event().wait()

        with pytest.raises(TransactionTimeoutError):
            async for _ in hangs():
                pass
        assert await place.texts() == []


async def test_run_in_new_ctx_says_how_to_iterate(place: Place) -> None:
    with pytest.raises(TypeError, match="async for"):
        await run_in_new_ctx(two, place.db)  # type: ignore[arg-type]


def test_retry_of_a_stream_is_refused() -> None:
    with pytest.raises(TypeError, match="retry"):
        transactional(retry=5)(two)  # type: ignore[call-overload]


class TestMistakes:
    async def test_wrong_arguments_enter_nothing(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "kept")
            for kind in (atomic, transactional(propagation="nested")):
                with pytest.raises(TypeError, match="argument"):
                    await anext(kind(two)())
            await commit_db_session(place.db)
        assert await place.texts() == ["kept"]

    async def test_atomic_streams_that_end_in_another_order_lose_everything(
        self, place: Place
    ) -> None:
        @transactional
        async def unit() -> None:
            first, second = atomic(two)(place.db, "first"), atomic(two)(place.db, "second")
            await anext(first)
            await anext(second)
            with pytest.raises(UnexpectedRollbackError, match="no end"):
                async for _ in first:
                    pass
            with pytest.raises(UnexpectedRollbackError):
                async for _ in second:
                    pass

        with pytest.raises(UnexpectedRollbackError):
            await unit()
        assert await place.texts() == []

    async def test_time_that_is_over_at_the_end_is_noticed(self, place: Place) -> None:
        @transactional(timeout_s=0.3)
        async def slow() -> AsyncIterator[int]:
            await write(place.db, "lost")
            yield 1
            time.sleep(0.4)

        @transactional
        async def unit() -> None:
            with pytest.raises(TransactionTimeoutError):
                async for _ in slow():
                    pass

        with pytest.raises(UnexpectedRollbackError):
            await unit()
        assert await place.texts() == []

    async def test_cancelled_while_its_body_cleans_up_it_is_rolled_back(self, place: Place) -> None:
        """Scenario: the time is over, the body yields all the same, and then cleans up slowly."""
        cleans = asyncio.Event()

        @transactional(timeout_s=0.3)
        async def stubborn() -> AsyncIterator[int]:
            await write(place.db, "lost")
            try:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    yield 1
            finally:
                cleans.set()
                await asyncio.Event().wait()

        async def consume() -> None:
            async for _ in stubborn():
                pass

        task = asyncio.create_task(consume())
        await cleans.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await place.db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await place.texts() == []

    async def test_left_to_the_collector_a_joined_one_touches_nothing(self, place: Place) -> None:
        tried = asyncio.Event()

        @transactional
        async def cleans_up() -> AsyncIterator[int]:
            try:
                await write(place.db, "kept")
                yield 1
            finally:
                tried.set()
                with pytest.raises(ConcurrentSessionUseError):
                    await write(place.db, "never")

        @transactional
        async def unit() -> None:
            async for _ in cleans_up():
                break
            await tried.wait()
            await write(place.db, "kept too")

        await unit()
        assert await place.texts() == ["kept", "kept too"]

    async def test_closed_by_a_task_that_the_unit_waits_for_it_ends_as_in_its_own(
        self, place: Place
    ) -> None:
        @transactional
        async def unit() -> None:
            await write(place.db, "kept")
            await commit_db_session(place.db)
            rows = atomic(two)(place.db)
            await anext(rows)
            await asyncio.create_task(rows.aclose())  # type: ignore[attr-defined]
            await write(place.db, "kept too")

        await unit()
        assert await place.texts() == ["kept", "kept too"]


class TestUndecorated:
    async def test_block_of_a_generator_that_is_closed_is_rolled_back(self, place: Place) -> None:
        async def rows() -> AsyncIterator[int]:
            async with atomic(place.db):
                await write(place.db, "lost")
                yield 1

        @transactional
        async def unit() -> None:
            async with aclosing(rows()) as items:
                await anext(items)
            await write(place.db, "kept")

        await unit()
        assert await place.texts() == ["kept"]

    async def test_boundary_of_one_that_is_closed_is_rolled_back_with_its_hooks(
        self, place: Place
    ) -> None:
        told: list[str] = []

        async def rows() -> AsyncIterator[int]:
            async with transactional():
                watch(told, "unit")
                await write(place.db, "lost")
                yield 1

        async with aclosing(rows()) as items:
            await anext(items)
        assert told == ["unit: after rollback", "unit: rolled_back"]
        assert not in_transaction()
        assert await place.texts() == []
