"""What a failure or a request dooms, exactly that, and what mends it. On both backends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest
from fastapi import HTTPException

from tests.boundary.test_atomic import Note
from tests.conftest import Place, PostgresJudge
from tests.notes import Boom, count, write
from txkit import (
    UnexpectedRollbackError,
    atomic,
    atomic_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)


@transactional
async def culprit() -> None:
    raise Boom


async def swallow() -> None:
    with pytest.raises(Boom):
        await culprit()


class TestLeavesTheBoundary:
    async def test_orm_changes_are_flushed_by_a_commit_that_the_rules_ask_for(
        self, place: Place
    ) -> None:
        @transactional(no_rollback_for=Boom)
        async def unit() -> None:
            (await db_session(place.db)).add(Note(text="kept"))
            await culprit()

        with pytest.raises(Boom) as caught:
            await unit()
        assert not hasattr(caught.value, "__notes__")
        assert await place.texts() == ["kept"]

    async def test_redirect_raised_by_a_joined_service_commits(self, place: Place) -> None:
        @transactional
        async def service() -> None:
            (await db_session(place.db)).add(Note(text="kept"))
            raise HTTPException(303)

        @transactional
        async def handler() -> None:
            await service()

        with pytest.raises(HTTPException):
            await handler()
        assert await place.texts() == ["kept"]

    async def test_group_that_holds_the_failure_is_judged_by_its_leaves(self, place: Place) -> None:
        @transactional(no_rollback_for=Boom)
        async def unit() -> None:
            await write(place.db, "kept")
            async with asyncio.TaskGroup() as group:
                group.create_task(culprit())

        with pytest.raises(ExceptionGroup):
            await unit()
        assert await place.texts() == ["kept"]

    async def test_exception_that_takes_no_note_leaves_all_the_same(self, place: Place) -> None:
        @dataclasses.dataclass(frozen=True)
        class Frozen(Exception):
            code: int

        @transactional(no_rollback_for=Frozen)
        async def unit() -> None:
            (await db_session(place.db)).add(Note(text=None))  # type: ignore[arg-type]
            raise Frozen(3)

        with pytest.raises(Frozen):
            await unit()


class TestOwnRequest:
    @pytest.mark.parametrize("by", ["function", "session", "atomic_db_session", "append"])
    async def test_commit_by_hand_is_refused(self, place: Place, by: str) -> None:
        async with transactional():
            await write(place.db, "lost")
            set_rollback_only("dry run")
            if by == "append":
                async with atomic(place.db, current_transaction="append"):
                    await write(place.db, "lost too")
                    set_rollback_only()
            else:
                with pytest.raises(UnexpectedRollbackError, match="asked for that itself"):
                    if by == "function":
                        await commit_db_session(place.db)
                    elif by == "session":
                        await (await db_session(place.db)).commit()
                    else:
                        async with atomic_db_session(place.db):
                            raise AssertionError
        assert await place.texts() == []

    async def test_append_block_can_not_commit_what_the_unit_gave_up(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "lost")
            set_rollback_only()
            async with atomic(place.db, current_transaction="append"):
                await write(place.db, "lost too")
        assert await place.texts() == []

    @pytest.mark.parametrize("opened", [False, True])
    async def test_dry_run_goes_through_atomic_services(self, place: Place, opened: bool) -> None:
        """What they do is seen until the end of their transaction, and never durable."""

        @atomic(place.db, current_transaction="savepoint" if opened else None)
        async def service() -> str:
            await write(place.db, "never")
            return "done"

        @transactional
        async def unit() -> str:
            if opened:
                await write(place.db, "before")
            set_rollback_only("dry run")
            result = await service()
            assert await count(place.db) == (2 if opened else 0)
            return result

        assert await unit() == "done"
        assert await place.texts() == []

    async def test_rollback_by_hand_fulfils_it(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "lost")
            set_rollback_only()
            await rollback_db_session(place.db)
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_finished_siblings_do_not_take_the_name_of_who_asks(self, place: Place) -> None:
        @transactional
        async def sibling(event: asyncio.Event) -> None:
            await event.wait()

        @transactional
        async def unit() -> None:
            await write(place.db, "lost")
            first, second = asyncio.Event(), asyncio.Event()
            both = asyncio.gather(sibling(first), sibling(second))
            await asyncio.sleep(0)
            first.set()
            second.set()
            await both
            set_rollback_only()

        await unit()
        assert await place.texts() == []


class TestMending:
    async def test_append_block_that_rolled_back_mends(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "lost")
            await swallow()
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(place.db, current_transaction="append"):
                    await write(place.db, "refused")
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_failure_before_any_use_dooms_until_a_rollback_by_hand(
        self, place: Place
    ) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await swallow()
        async with transactional():
            await swallow()
            await rollback_db_session(place.db)
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_second_failure_dooms_again(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "lost")
                await swallow()
                await rollback_db_session(place.db)
                await write(place.db, "lost too")
                await swallow()
        assert await place.texts() == []

    async def test_commit_after_a_failed_flush_is_refused(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "lost")
            session = await db_session(place.db)
            session.add(Note(text=None))  # type: ignore[arg-type]
            with pytest.raises(Exception, match="NOT NULL|not-null"):
                await session.flush()
            with pytest.raises(UnexpectedRollbackError, match="flush"):
                await commit_db_session(place.db)
            with pytest.raises(UnexpectedRollbackError, match="flush"):
                async with atomic(place.db):
                    raise AssertionError
            await rollback_db_session(place.db)
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]


class TestUsersSavepoint:
    async def test_failure_that_leaves_it_is_undone_with_it(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "a")
            with pytest.raises(Boom):
                async with session.begin_nested():
                    await write(place.db, "lost")
                    await culprit()
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]

    async def test_failure_swallowed_inside_is_refused_at_its_release(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "a")
            with pytest.raises(UnexpectedRollbackError, match="savepoint"):
                async with session.begin_nested():
                    await write(place.db, "lost")
                    await swallow()
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]


class TestBrokenUp:
    """Through the session's own objects nothing can be refused in time; it is told at the end."""

    async def test_root_transaction_rolled_back_inside_a_block(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError, match="by hand inside the block"):
            async with atomic(place.db) as session:
                await write(place.db, "first half")
                await session.get_transaction().rollback()  # type: ignore[union-attr]
                await write(place.db, "second half")
        assert await place.texts() == []

    async def test_savepoint_released_inside_its_block_is_refused(self, place: Place) -> None:
        async with atomic(place.db) as session:
            await write(place.db, "a")
            with pytest.raises(Boom):
                async with atomic(place.db):
                    await write(place.db, "lost")
                    with pytest.raises(Exception, match="refused inside the atomic block"):
                        await session.get_nested_transaction().commit()  # type: ignore[union-attr]
                    raise Boom
        assert await place.texts() == ["a"]


class TestInnermost:
    """The innermost block or savepoint, whatever there is around it."""

    async def test_savepoint_left_open_is_judged_at_the_end(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                session = await db_session(place.db)
                await write(place.db, "a")
                await session.begin_nested()
                await write(place.db, "half")
                await swallow()
        assert await place.texts() == []

    async def test_outer_savepoint_with_a_healthy_one_inside_is_not_released(
        self, place: Place
    ) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                session = await db_session(place.db)
                await write(place.db, "a")
                outer = await session.begin_nested()
                await swallow()
                await session.begin_nested()
                await outer.commit()
        assert await place.texts() == []

    async def test_refusal_in_an_autoflush_does_not_lift_the_mark(self, place: Place) -> None:
        @transactional
        async def adds_and_fails() -> None:
            (await db_session(place.db)).add(Note(text="half"))
            raise Boom

        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "kept")
            with pytest.raises(UnexpectedRollbackError, match="savepoint"):
                async with session.begin_nested():
                    await write(place.db, "lost")
                    with pytest.raises(Boom):
                        await adds_and_fails()
                    with pytest.raises(UnexpectedRollbackError):
                        await write(place.db, "refused")
        assert await place.texts() == ["kept"]

    async def test_savepoint_around_a_block_is_rolled_back_inside_it(self, place: Place) -> None:
        async with atomic(place.db) as session:
            await write(place.db, "kept")
            around = await session.begin_nested()
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(place.db):
                    await write(place.db, "lost")
                    await around.rollback()
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]


class TestSharedObject:
    async def test_exit_in_a_generator_ends_its_own_unit(self, place: Place) -> None:
        """Scenario: a generator and its consumer enter the same object; the generator is left
        first. Outcome: each ends what it entered."""
        if not place.judge.url.startswith("postgresql"):
            return  # one writer
        unit = transactional(propagation="requires_new")

        async def generate():
            async with unit:
                await write(place.db, "generator")
                yield 1

        generator = generate()
        await anext(generator)
        with pytest.raises(Boom):
            async with unit:
                await write(place.db, "consumer")
                assert await anext(generator, None) is None
                assert await place.texts() == ["generator"]
                await write(place.db, "consumer")
                raise Boom
        assert await place.texts() == ["generator"]

    async def test_exit_stack_is_closed_with_its_coroutine(self, place: Place) -> None:
        inside = asyncio.Event()

        async def unit() -> None:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(transactional())
                await write(place.db, "lost")
                inside.set()
                await asyncio.Event().wait()

        coroutine = unit()
        task = asyncio.ensure_future(coroutine)
        await inside.wait()
        coroutine.close()
        task.cancel()
        with pytest.raises(RuntimeError, match="already awaited"):
            await task
        assert (await place.db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        if isinstance(place.judge, PostgresJudge):
            while await place.judge.backends():
                await asyncio.sleep(0)
        assert await place.texts() == []
