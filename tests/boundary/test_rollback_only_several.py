"""Rollback-only over two Databases: PostgreSQL and SQLite together, and SQLite twice.

What a joined call used is doomed on each of them, what it left alone is not, and
rolling one back lifts the mark there only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.boundary.mistakes import statement, swallowed
from tests.conftest import Place, SqliteJudge, opened
from tests.notes import Boom, count, write
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    rollback_db_session,
    transactional,
)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Place]:
    """The second Database."""
    judge = SqliteJudge(tmp_path / "other.db")
    connection = sqlite3.connect(judge.path)
    connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(200) NOT NULL)")
    connection.close()
    async for db in opened(judge, name="other"):
        yield Place(db, judge)


@transactional(name="culprit")
async def culprit(*used: Database) -> None:
    for db in used:
        await write(db, "lost")
    raise Boom("no")


async def is_doomed(db: Database, culprit: str = "culprit") -> None:
    with pytest.raises(UnexpectedRollbackError, match="can only be") as refused:
        await count(db)
    assert refused.value.culprit == culprit


async def test_end_rolls_back_both_and_names_the_culprit(place: Place, other: Place) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional(name="unit"):
            await write(place.db, "lost")
            await write(other.db, "lost")
            with swallowed(Boom) as first:
                await culprit(place.db)
            await is_doomed(place.db)
            await is_doomed(other.db)
    assert (caught.value.function, caught.value.culprit) == ("unit", "culprit")
    assert caught.value.__cause__ is first.error
    assert (await place.texts(), await other.texts()) == ([], [])


async def test_culprit_that_used_none_dooms_what_comes_into_use_later(
    place: Place, other: Place
) -> None:
    with pytest.raises(UnexpectedRollbackError, match="culprit"):
        async with transactional():
            with swallowed(Boom):
                await culprit()
            await is_doomed(place.db)
            await is_doomed(other.db)
    assert (await place.texts(), await other.texts()) == ([], [])


@pytest.mark.parametrize("turned", [False, True])
async def test_rollback_by_hand_lifts_the_mark_there_only(
    place: Place, other: Place, turned: bool
) -> None:
    mended, doomed = (other, place) if turned else (place, other)
    with pytest.raises(UnexpectedRollbackError, match="culprit"):
        async with transactional():
            with swallowed(Boom):
                await culprit(place.db, other.db)
            await rollback_db_session(mended.db)
            await write(mended.db, "lost with the unit")
            await is_doomed(doomed.db)
            with pytest.raises(UnexpectedRollbackError, match="culprit"):
                await commit_db_session(doomed.db)
    assert (await place.texts(), await other.texts()) == ([], [])


async def test_rollback_of_both_mends_all(place: Place, other: Place) -> None:
    async with transactional():
        with swallowed(Boom):
            await culprit(place.db, other.db)
        await rollback_db_session(place.db)
        await rollback_db_session(other.db)
        await write(place.db, "kept")
        await write(other.db, "kept")
    assert (await place.texts(), await other.texts()) == (["kept"], ["kept"])


@pytest.mark.parametrize("kind", ["atomic", "begin_nested"])
class TestUnitOfOne:
    """A block or savepoint on the one Database, in which a joined call fails."""

    async def test_other_that_was_used_is_doomed_with_it(
        self, place: Place, other: Place, kind: str
    ) -> None:
        with pytest.raises(UnexpectedRollbackError, match="culprit"):
            async with transactional():
                await write(place.db, "lost")
                await write(other.db, "lost")
                with pytest.raises(UnexpectedRollbackError):
                    async with await self.unit(place, kind):
                        with swallowed(Boom):
                            await culprit(place.db, other.db)
                        await is_doomed(place.db)
                        await is_doomed(other.db)
                assert await count(place.db) == 1
                await is_doomed(other.db)
        assert (await place.texts(), await other.texts()) == ([], [])

    async def test_other_that_was_left_alone_is_not(
        self, place: Place, other: Place, kind: str
    ) -> None:
        async with transactional():
            await write(place.db, "kept")
            await write(other.db, "kept")
            with pytest.raises(UnexpectedRollbackError):
                async with await self.unit(place, kind):
                    with swallowed(Boom):
                        await culprit(place.db)
                    await is_doomed(place.db)
                    await write(other.db, "kept too")
        assert (await place.texts(), await other.texts()) == (["kept"], ["kept", "kept too"])

    async def unit(self, place: Place, kind: str):
        if kind == "begin_nested":
            return (await db_session(place.db)).begin_nested()
        return atomic(place.db, current_transaction="savepoint")


@pytest.mark.parametrize("kind", ["atomic over both", "bare atomic", "nested"])
@pytest.mark.parametrize("opened_inside", [False, True])
async def test_unit_over_both_is_doomed_as_a_whole_and_alone(
    place: Place, other: Place, kind: str, opened_inside: bool
) -> None:
    """Outcome: what it opened itself is gone, what was open is as before; others commit."""
    unit = {
        "atomic over both": lambda: atomic(place.db, other.db, current_transaction="savepoint"),
        "bare atomic": lambda: atomic(current_transaction="savepoint"),
        "nested": lambda: transactional(propagation="nested"),
    }[kind]
    async with transactional():
        await write(place.db, "kept")
        if not opened_inside:
            await write(other.db, "kept")
        with pytest.raises(UnexpectedRollbackError, match="culprit"):
            async with unit():
                await write(other.db, "lost")
                with swallowed(Boom):
                    await culprit(place.db)
                await is_doomed(place.db)
                await is_doomed(other.db)
        await write(place.db, "kept too")
        await write(other.db, "kept too")
    before = [] if opened_inside else ["kept"]
    assert await place.texts() == ["kept", "kept too"]
    assert await other.texts() == [*before, "kept too"]


class TestThreeLevels:
    async def test_block_in_a_block_of_the_other_dooms_both_that_were_used(
        self, place: Place, other: Place
    ) -> None:
        async with transactional():
            with pytest.raises(UnexpectedRollbackError, match="culprit"):
                async with atomic(place.db):
                    await write(place.db, "lost")
                    with pytest.raises(UnexpectedRollbackError, match="culprit"):
                        async with atomic(other.db):
                            with swallowed(Boom):
                                await culprit(place.db, other.db)
                    await is_doomed(place.db)
                    await write(other.db, "kept")
            await write(place.db, "kept")
        assert (await place.texts(), await other.texts()) == (["kept"], ["kept"])

    async def test_block_in_a_block_of_the_other_dooms_what_was_used_alone(
        self, place: Place, other: Place
    ) -> None:
        async with transactional():
            async with atomic(place.db):
                await write(place.db, "kept")
                with pytest.raises(UnexpectedRollbackError, match="culprit"):
                    async with atomic(other.db):
                        with swallowed(Boom):
                            await culprit(other.db)
                await write(place.db, "kept too")
        assert (await place.texts(), await other.texts()) == (["kept", "kept too"], [])


class TestDatabaseError:
    """A swallowed database error breaks the transaction of its Database."""

    async def test_end_commits_neither(self, place: Place, other: Place) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                await write(other.db, "lost")
                await write(place.db, "lost")
                with swallowed() as first:
                    await statement(await db_session(place.db))
                await write(other.db, "lost too")
        assert caught.value.__cause__ is first.error
        assert (await place.texts(), await other.texts()) == ([], [])

    async def test_other_may_be_committed_by_hand(self, place: Place, other: Place) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(other.db, "kept")
                await write(place.db, "lost")
                with swallowed():
                    await statement(await db_session(place.db))
                await commit_db_session(other.db)
        assert (await place.texts(), await other.texts()) == ([], ["kept"])

    async def test_block_over_both_commits_neither(self, place: Place, other: Place) -> None:
        async with transactional():
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(other.db, place.db):
                    await write(other.db, "lost")
                    await write(place.db, "lost")
                    with swallowed():
                        await statement(await db_session(place.db))
            await write(place.db, "kept")
        assert (await place.texts(), await other.texts()) == (["kept"], [])
