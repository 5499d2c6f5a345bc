"""What a unit asked for itself, what the rules make of a joined failure, and what mends. On both backends."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from fastapi import HTTPException

from tests.boundary.test_atomic import Note
from tests.conftest import Place
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

    async def test_finished_child_does_not_take_the_name_of_who_asks(self, place: Place) -> None:
        @transactional
        async def sibling(event: asyncio.Event) -> None:
            await event.wait()

        @transactional
        async def unit() -> None:
            await write(place.db, "lost")
            event = asyncio.Event()
            one = asyncio.gather(sibling(event))
            await asyncio.sleep(0)
            event.set()
            await one
            set_rollback_only()

        await unit()
        assert await place.texts() == []


class TestMending:
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
