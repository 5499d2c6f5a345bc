"""Hooks of a unit that committed on one Database and not on the other: nobody is told a half."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.test_several_databases import refuse_commits
from tests.told import rolled_back, unknown, watch
from txkit import Database, PartialCommitError, after_completion, atomic, transactional


def boundary(db: Database, db2: Database) -> object:
    return transactional()


def block(db: Database, db2: Database) -> object:
    return atomic(db, db2)


class TestPartialCommit:
    @pytest.mark.parametrize("unit", [boundary, block])
    @pytest.mark.parametrize("registered", ["before", "between", "after"])
    async def test_only_unknown_is_told_whenever_it_was_registered(
        self,
        db: Database,
        db2: Database,
        pg: PostgresJudge,
        pg2: PostgresJudge,
        unit: Callable,
        registered: str,
    ) -> None:
        told: list[str] = []
        await refuse_commits(pg2)
        with pytest.raises(PartialCommitError):
            async with transactional(), unit(db, db2):
                if registered == "before":
                    watch(told, "unit")
                await write(db, "a")
                if registered == "between":
                    watch(told, "unit")
                await write(db2, "b")
                if registered == "after":
                    watch(told, "unit")
        assert told == ["unit: before", *unknown("unit")]
        assert (await pg.texts(), await pg2.texts()) == (["a"], [])

    async def test_by_hand_over_both_tells_each_hook_what_it_waited_for(
        self, db: Database, db2: Database, pg2: PostgresJudge
    ) -> None:
        """An atomic block that commits first what is open, and gets no further."""
        told: list[str] = []
        await refuse_commits(pg2)
        with pytest.raises(PartialCommitError):
            async with transactional():
                await write(db, "a")
                await write(db2, "b")
                watch(told, "both")
                async with atomic(db, db2, current_transaction="commit"):
                    raise AssertionError
        assert told == ["both: before", *unknown("both")]

    async def test_failing_hook_is_noted_on_the_partial_commit(
        self, db: Database, db2: Database, pg2: PostgresJudge
    ) -> None:
        await refuse_commits(pg2)

        def fails(_: str) -> None:
            raise KeyError("hook")

        with pytest.raises(PartialCommitError) as caught:
            async with transactional():
                await write(db, "a")
                await write(db2, "b")
                after_completion(fails)
        [line] = caught.value.__notes__
        assert "unknown" in line
        assert "KeyError: 'hook'" in line

    async def test_refusal_of_the_first_is_a_rollback_of_all(
        self, db: Database, db2: Database, pg: PostgresJudge
    ) -> None:
        told: list[str] = []
        await refuse_commits(pg)
        with pytest.raises(Exception, match="refused"):
            async with transactional():
                await write(db, "a")
                await write(db2, "b")
                watch(told, "unit")
        assert told == ["unit: before", *rolled_back("unit")]
