"""Hooks over several Databases: they wait for all that was open, and tell where they differ."""

from __future__ import annotations

import pytest

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.told import committed, watch
from tests.ways import COMMITS, End, each
from txkit import (
    AfterCommitError,
    Database,
    after_commit,
    after_completion,
    atomic,
    before_commit,
    commit_db_session,
    db_session,
    rollback_db_session,
    transactional,
)


class TestWaiting:
    @each("commit", COMMITS)
    async def test_hook_waits_for_all_that_was_open_when_it_was_registered(
        self, db: Database, db2: Database, commit: End
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(db, "a")
            watch(told, "one")
            await write(db2, "b")
            watch(told, "both")
            await commit(db)
            assert told == committed("one")
            told.clear()
            await commit(db2)
            assert told == committed("both")
            told.clear()
        assert told == []

    async def test_what_is_opened_later_is_not_waited_for(
        self, db: Database, db2: Database
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(db, "a")
            watch(told, "first")
            await write(db2, "b")
            await commit_db_session(db)
            assert told == committed("first")
            watch(told, "second")
            await write(db, "c")
            told.clear()
            await commit_db_session(db2)
            assert told == committed("second")

    async def test_end_of_another_database_settles_nothing(
        self, db: Database, db2: Database
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(db, "a")
            watch(told, "unit")
            await write(db2, "b")
            await commit_db_session(db2)
            assert told == []
            await write(db2, "c")
            await rollback_db_session(db2)
            assert told == []
        assert told == committed("unit")

    async def test_handed_down_waits_for_what_is_open_by_then(
        self, db: Database, db2: Database
    ) -> None:
        """Scenario: a hook of a savepoint, registered when only the first Database was open; the
        second is used in the savepoint afterwards. Outcome: it waits for both."""
        told: list[str] = []
        async with transactional():
            await write(db, "a")
            async with transactional(propagation="nested"):
                watch(told, "nested")
                await write(db2, "b")
            await commit_db_session(db)
            assert told == []
            await commit_db_session(db2)
            assert told == committed("nested")

    async def test_block_on_one_database_waits_for_that_alone(
        self, db: Database, db2: Database
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(db2, "open")
            watch(told, "context")
            async with atomic(db):
                watch(told, "block")
                await write(db, "a")
                await write(db2, "open")
                assert told == []
            assert told == committed("block")
            told.clear()
        assert told == committed("context")

    async def test_commit_of_another_database_inside_a_block_leaves_its_hooks_alone(
        self, db: Database, db2: Database
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(db2, "b")
            watch(told, "context")
            async with atomic(db):
                watch(told, "block")
                await write(db, "a")
                await commit_db_session(db2)
                assert told == committed("context")
                told.clear()
            assert told == committed("block")

    async def test_block_that_is_a_savepoint_of_one_waits_for_the_block_around_it(
        self, db: Database, db2: Database, pg2: PostgresJudge
    ) -> None:
        """Its other Database is committed with it; its hooks go where the savepoint goes."""
        told: list[str] = []
        async with transactional():
            async with atomic(db):
                await write(db, "a")
                async with atomic(db, db2):
                    watch(told, "inner")
                    await write(db, "b")
                    await write(db2, "c")
                assert await pg2.texts() == ["c"]
                assert told == []
            assert told == committed("inner")


async def test_before_commit_hook_of_both_waits_for_the_last_commit(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    """It runs inside the transaction whose commit settles it."""
    told: list[str] = []

    async def hook() -> None:
        told.append("before")
        await write(db2, "hook")

    async with transactional():
        await write(db, "a")
        await write(db2, "b")
        before_commit(hook)
        await commit_db_session(db)
        assert told == []
        await (await db_session(db2)).commit()
        assert told == ["before"]
        assert await pg2.texts() == ["b", "hook"]


async def test_before_commit_hook_may_open_another_database(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    told: list[str] = []

    async def hook() -> None:
        await write(db2, "outbox")
        after_commit(lambda: told.append("after commit"))

    async with transactional():
        await write(db, "a")
        before_commit(hook)
        after_completion(told.append)
    assert told == ["committed", "after commit"]
    assert (await pg.texts(), await pg2.texts()) == (["a"], ["outbox"])


async def test_one_error_tells_of_all_hooks(db: Database, db2: Database) -> None:
    def fails() -> None:
        raise Boom

    with pytest.raises(AfterCommitError) as caught:
        async with transactional():
            await write(db, "a")
            after_commit(fails)
            await write(db2, "b")
            after_commit(fails)
    assert len(caught.value.exceptions) == 2
