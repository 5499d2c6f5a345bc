"""Hooks of the user's own savepoints, which may end in other ways than a block, or not at all.

On both backends.
"""

from __future__ import annotations

import pytest

from tests.boundary.test_hooks_savepoints import a_boundary
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from txkit import (
    after_completion,
    after_rollback,
    atomic,
    before_commit,
    commit_db_session,
    db_session,
    set_rollback_only,
    transactional,
)


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_its_own_methods_settle_its_hooks(place: Place, ends: str) -> None:
    told: list[str] = []
    async with a_boundary(place.db):
        savepoint = await (await db_session(place.db)).begin_nested()
        watch(told, "inside")
        await write(place.db, "inside")
        if ends == "commit":
            await savepoint.commit()
        else:
            await savepoint.rollback()
        assert told == ([] if ends == "commit" else rolled_back("inside"))
        told.clear()
    assert told == (committed("inside") if ends == "commit" else [])


@pytest.mark.parametrize("by", ["boundary", "function", "session", "block"])
@pytest.mark.parametrize("depth", [1, 2])
async def test_left_open_is_committed_with_its_transaction(
    place: Place, by: str, depth: int
) -> None:
    """Those before the commit run too."""
    told: list[str] = []

    async def leave_open() -> None:
        session = await db_session(place.db)
        for _ in range(depth):
            await session.begin_nested()
        watch(told, "inside")
        await write(place.db, "inside")

    async with transactional():
        if by == "block":
            async with atomic(place.db):
                watch(told, "around")
                await write(place.db, "around")
                await leave_open()
        else:
            watch(told, "around")
            await write(place.db, "around")
            await leave_open()
        if by == "function":
            await commit_db_session(place.db)
        elif by == "session":
            await (await db_session(place.db)).commit()
        assert told == ([] if by == "boundary" else committed("around", "inside"))
    assert told == committed("around", "inside")
    assert await place.texts() == ["around", "inside"]


@pytest.mark.parametrize("by", ["exception", "request"])
async def test_left_open_is_rolled_back_with_its_transaction(place: Place, by: str) -> None:
    told: list[str] = []

    @transactional
    async def unit() -> None:
        watch(told, "around")
        await write(place.db, "lost")
        await (await db_session(place.db)).begin_nested()
        watch(told, "inside")
        if by == "request":
            set_rollback_only()
        else:
            raise Boom

    if by == "exception":
        with pytest.raises(Boom):
            await unit()
    else:
        await unit()
    assert sorted(told) == sorted(rolled_back("around", "inside"))


async def test_outer_one_released_takes_the_inner_along(place: Place) -> None:
    told: list[str] = []
    async with a_boundary(place.db):
        session = await db_session(place.db)
        outer = await session.begin_nested()
        watch(told, "outer")
        await session.begin_nested()
        watch(told, "inner")
        await write(place.db, "inside")
        await outer.commit()
        assert told == []
    assert told == committed("outer", "inner")


async def test_outer_one_rolled_back_takes_the_inner_along(place: Place) -> None:
    told: list[str] = []
    async with a_boundary(place.db):
        session = await db_session(place.db)
        outer = await session.begin_nested()
        watch(told, "outer")
        await session.begin_nested()
        watch(told, "inner")
        await write(place.db, "lost")
        await outer.rollback()
        assert sorted(told) == sorted(rolled_back("outer", "inner"))
        told.clear()
    assert told == []
    assert await place.texts() == ["around"]


@pytest.mark.parametrize("by", ["function", "session", "block"])
@pytest.mark.parametrize("depth", [1, 2])
async def test_rolled_back_after_a_commit_that_failed_it_tells_its_hooks(
    place: Place, by: str, depth: int
) -> None:
    """Scenario: a before_commit hook refuses a commit by hand that would release the savepoint,
    the body catches that and rolls the savepoint back. Outcome: it stays theirs."""
    told: list[str] = []
    ready: list[bool] = []

    def refuses() -> None:
        if not ready:
            raise Boom

    async def commit() -> None:
        if by == "function":
            await commit_db_session(place.db)
        elif by == "session":
            await (await db_session(place.db)).commit()
        else:
            async with atomic(place.db, current_transaction="commit"):
                pass

    async with transactional():
        session = await db_session(place.db)
        await write(place.db, "around")
        savepoint = await session.begin_nested()
        for _ in range(depth - 1):
            await session.begin_nested()
        await write(place.db, "lost")
        before_commit(refuses)
        after_rollback(lambda: told.append("after rollback"))
        after_completion(told.append)
        with pytest.raises(Boom):
            await commit()
        assert told == []
        await savepoint.rollback()
        assert told == ["after rollback", "rolled_back"]
        ready.append(True)
    assert told == ["after rollback", "rolled_back"]
    assert await place.texts() == ["around"]
