"""Hooks over Databases that end differently: nobody is told a half."""

from __future__ import annotations

import pytest

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.told import committed, rolled_back, unknown, watch
from tests.ways import ROLLBACKS, End, each
from txkit import (
    Database,
    commit_db_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)


@each("rollback", ROLLBACKS)
@pytest.mark.parametrize("commits_first", [False, True])
async def test_by_hand_leaves_only_unknown(
    db: Database,
    db2: Database,
    pg: PostgresJudge,
    pg2: PostgresJudge,
    rollback: End,
    commits_first: bool,
) -> None:
    told: list[str] = []
    async with transactional():
        await write(db, "kept")
        await write(db2, "lost")
        watch(told, "unit")
        if commits_first:
            await commit_db_session(db)
            assert told == []
            await rollback(db2)
            assert told == unknown("unit")
        else:
            await rollback(db2)
            assert told == []
            await commit_db_session(db)
            assert told == ["unit: before", *unknown("unit")]
        told.clear()
    assert told == []
    assert (await pg.texts(), await pg2.texts()) == (["kept"], [])


@pytest.mark.parametrize("how", ["exception", "request"])
async def test_boundary_that_rolls_back_the_rest_leaves_only_unknown(
    db: Database, db2: Database, pg: PostgresJudge, how: str
) -> None:
    told: list[str] = []

    @transactional
    async def unit() -> None:
        await write(db, "kept")
        watch(told, "first")
        await write(db2, "lost")
        watch(told, "both")
        await commit_db_session(db)
        assert told == committed("first")
        told.clear()
        watch(told, "second")
        if how == "exception":
            raise Boom
        set_rollback_only()

    if how == "exception":
        with pytest.raises(Boom):
            await unit()
    else:
        await unit()
    assert told == [*unknown("both"), *rolled_back("second")]
    assert await pg.texts() == ["kept"]


async def test_committed_one_after_the_other_is_committed(db: Database, db2: Database) -> None:
    told: list[str] = []
    async with transactional():
        await write(db, "a")
        await write(db2, "b")
        watch(told, "unit")
        await commit_db_session(db)
    assert told == committed("unit")


async def test_rolled_back_one_after_the_other_is_rolled_back(db: Database, db2: Database) -> None:
    told: list[str] = []
    async with transactional():
        await write(db, "a")
        await write(db2, "b")
        watch(told, "unit")
        await rollback_db_session(db)
        assert told == []
        await rollback_db_session(db2)
        assert told == rolled_back("unit")


async def test_new_work_does_not_change_what_is_told_of_the_old(
    db: Database, db2: Database
) -> None:
    told: list[str] = []
    async with transactional():
        await write(db, "a")
        await write(db2, "b")
        watch(told, "unit")
        await commit_db_session(db)
        await write(db, "new")
        await rollback_db_session(db)
        assert told == []
        await commit_db_session(db2)
        assert told == committed("unit")
