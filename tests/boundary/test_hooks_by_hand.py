"""Hooks of the context after an end by hand: which run then, which wait. On both backends.

Several Databases that end differently are in ``postgres/test_hooks_several_databases``.
"""

from __future__ import annotations

import pytest

from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from tests.ways import COMMITS, ROLLBACKS, End, append_nothing, each
from txkit import (
    after_commit,
    after_completion,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    transactional,
)


@each("commit", [*COMMITS, append_nothing])
class TestCommit:
    async def test_hooks_of_what_was_open_run_now_and_once(self, place: Place, commit: End) -> None:
        """Whatever becomes of the boundary."""
        told: list[str] = []
        with pytest.raises(Boom):
            async with transactional():
                await write(place.db, "kept")
                watch(told, "first")
                await write(place.db, "kept too")
                watch(told, "second")
                assert told == []
                await commit(place.db)
                assert told == committed("first", "second")
                raise Boom
        assert told == committed("first", "second")
        assert await place.texts() == ["kept", "kept too"]

    async def test_what_is_registered_afterwards_waits_for_the_next_end(
        self, place: Place, commit: End
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(place.db, "a")
            watch(told, "first")
            await commit(place.db)
            told.clear()
            await write(place.db, "b")
            watch(told, "second")
            await commit(place.db)
            assert told == committed("second")
            told.clear()
            await write(place.db, "c")
            watch(told, "third")
            assert told == []
        assert told == committed("third")

    async def test_failure_of_the_boundary_rolls_back_only_what_came_afterwards(
        self, place: Place, commit: End
    ) -> None:
        told: list[str] = []
        with pytest.raises(Boom):
            async with transactional():
                await write(place.db, "kept")
                await commit(place.db)
                watch(told, "between")
                await write(place.db, "lost")
                watch(told, "after")
                raise Boom
        assert told == rolled_back("between", "after")
        assert await place.texts() == ["kept"]


@each("rollback", ROLLBACKS)
class TestRollback:
    async def test_hooks_of_what_was_open_run_now_and_once(
        self, place: Place, rollback: End
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(place.db, "lost")
            watch(told, "first")
            await write(place.db, "lost too")
            watch(told, "second")
            assert told == []
            await rollback(place.db)
            assert told == rolled_back("first", "second")
            await write(place.db, "kept")
            watch(told, "third")
            told.clear()
        assert told == committed("third")
        assert await place.texts() == ["kept"]

    async def test_hook_registered_before_the_first_use_is_one_of_them(
        self, place: Place, rollback: End
    ) -> None:
        told: list[str] = []
        async with transactional():
            watch(told, "unit")
            await write(place.db, "lost")
            await rollback(place.db)
            assert told == rolled_back("unit")
        assert told == rolled_back("unit")


@each("commit", COMMITS)
async def test_hook_registered_before_the_first_use_runs_with_the_first_commit(
    place: Place, commit: End
) -> None:
    told: list[str] = []
    async with transactional():
        watch(told, "unit")
        await write(place.db, "kept")
        await commit(place.db)
        assert told == committed("unit")
    assert told == committed("unit")


@each("commit", COMMITS)
async def test_session_is_the_users_again_after_a_hook_in_the_middle(
    place: Place, commit: End
) -> None:
    """The context that was set aside for the hook is back, with its session."""
    async with transactional():
        session = await db_session(place.db)
        await write(place.db, "a")
        after_commit(lambda: None)
        await commit(place.db)
        assert await db_session(place.db) is session
        await write(place.db, "b")
        assert await place.texts() == ["a"]
    assert await place.texts() == ["a", "b"]


@pytest.mark.parametrize("end", [commit_db_session, rollback_db_session, close_db_session])
async def test_end_of_nothing_runs_no_hook(place: Place, end: End) -> None:
    """Scenario: an end by hand where no transaction is open, then one where a session is.
    Outcome: the hooks wait for the unit."""
    told: list[str] = []
    async with transactional():
        watch(told, "unit")
        await end(place.db)
        assert told == []
        await db_session(place.db)
        await end(place.db)
        assert told == []
        await write(place.db, "kept")
        told.clear()
    assert told == committed("unit")


async def test_end_that_sent_nothing_runs_no_hook(place: Place) -> None:
    """An object that was added and taken out again: there was no transaction at the server."""
    told: list[str] = []
    async with transactional():
        session = await db_session(place.db)
        note = Note(text="never")
        session.add(note)
        after_completion(told.append)
        session.expunge(note)
        await commit_db_session(place.db)
        assert told == []
    assert told == ["committed"]


async def test_joined_function_may_end_it_too(place: Place) -> None:
    told: list[str] = []

    @transactional
    async def joined() -> None:
        watch(told, "joined")
        await write(place.db, "kept")
        await commit_db_session(place.db)
        assert told == committed("unit", "joined")

    with pytest.raises(Boom):
        async with transactional():
            watch(told, "unit")
            await joined()
            raise Boom
    assert told == committed("unit", "joined")


@each("commit", COMMITS)
async def test_savepoint_that_was_released_before_runs_with_it(place: Place, commit: End) -> None:
    told: list[str] = []
    async with transactional():
        await write(place.db, "a")
        watch(told, "before")
        async with (await db_session(place.db)).begin_nested():
            watch(told, "user's")
            await write(place.db, "b")
        async with atomic(place.db, current_transaction="savepoint"):
            watch(told, "savepoint")
            await write(place.db, "c")
        async with transactional(propagation="nested"):
            watch(told, "nested")
            await write(place.db, "d")
        assert told == []
        await commit(place.db)
        assert told == committed("before", "user's", "savepoint", "nested")


async def test_what_a_nested_call_opened_waits_for_its_end(place: Place) -> None:
    """Scenario: nothing was open before a nested call; its hooks were registered before it used
    the Database. Outcome: handed to the boundary, they wait for the transaction that is open."""
    told: list[str] = []
    async with transactional():
        async with transactional(propagation="nested"):
            watch(told, "nested")
            await write(place.db, "kept")
        assert told == []
        await commit_db_session(place.db)
        assert told == committed("nested")
