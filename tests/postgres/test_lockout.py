"""A lock that the suspended caller holds: the unit that waits for it is told, within seconds.

The server sees no deadlock, since the caller's backend is idle, and no limit is set.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.test_atomic import Note
from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.wanted import SOON_S, change, in_the_same_task
from txkit import (
    Database,
    PoolStarvationError,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_session,
    rollback_db_session,
    transactional,
)

pytestmark = pytest.mark.usefixtures("row")


async def as_requires_new(db: Database) -> None:
    await transactional(propagation="requires_new", name="inner")(change)(db, "inner")


async def as_a_block(db: Database) -> None:
    async with new_context(name="inner"):
        await change(db, "inner")


async def in_autocommit(db: Database) -> None:
    await transactional(propagation="not_supported", name="inner")(change)(db, "inner")


async def in_a_task(db: Database) -> None:
    await asyncio.create_task(in_the_same_task(db))


async def in_a_gathering(db: Database) -> None:
    await asyncio.gather(asyncio.sleep(0), in_the_same_task(db))


async def in_a_joined_function(db: Database) -> None:
    @transactional
    async def joined() -> None:
        await atomic(db, current_transaction="savepoint")(change)(db, "inner")

    async with new_context(name="inner"):
        await write(db, "never")
        await joined()


async def in_a_child_of_its_own(db: Database) -> None:
    async with new_context(name="inner"):
        await write(db, "never")
        await asyncio.gather(change(db, "inner"))


async def in_a_flush(db: Database) -> None:
    async with new_context(name="inner"):
        session = await db_session(db)
        found = (await session.scalars(select(Note).where(Note.id == 1000))).one()
        found.text = "inner"


async def two_levels_down(db: Database) -> None:
    async with new_context(name="between"):
        await write(db, "never")
        await in_the_same_task(db)


INNER = [
    in_the_same_task,
    as_requires_new,
    as_a_block,
    in_autocommit,
    in_a_task,
    in_a_gathering,
    in_a_joined_function,
    in_a_child_of_its_own,
    in_a_flush,
    two_levels_down,
]


@pytest.mark.parametrize("inner", INNER, ids=lambda inner: inner.__name__)
async def test_unit_that_waits_for_its_callers_row_is_told_and_the_caller_goes_on(
    db: Database, pg: PostgresJudge, inner: Any
) -> None:
    async with transactional(name="import_day"):
        await change(db, "outer")
        async with asyncio.timeout(SOON_S):
            with pytest.raises(PoolStarvationError) as caught:
                await inner(db)
        await write(db, "after")
    error = caught.value
    assert (error.function, error.holders, error.database) == ("inner", ("import_day",), db)
    for word in ["'inner'", "'import_day'", "lock", "rows", "@transactional", "by hand"]:
        assert word in str(error)
    assert sorted(await pg.texts()) == ["after", "outer"]


async def test_error_that_leaves_rolls_both_back(db: Database, pg: PostgresJudge) -> None:
    async with asyncio.timeout(SOON_S):
        with pytest.raises(PoolStarvationError):
            async with transactional():
                await change(db, "outer")
                await in_the_same_task(db)
    assert await pg.texts() == ["first"]


async def test_caller_rolls_back_and_the_unit_is_run_again(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        async with asyncio.timeout(SOON_S):
            with pytest.raises(PoolStarvationError):
                await in_the_same_task(db)
        await rollback_db_session(db)
        await in_the_same_task(db)
    assert await pg.texts() == ["inner"]


async def test_session_outside_any_context(db: Database, pg: PostgresJudge) -> None:
    async with transactional(name="import_day"):
        await change(db, "outer")
        async with asyncio.timeout(SOON_S), new_non_ctx_session(db) as session:
            with pytest.raises(PoolStarvationError, match="import_day"):
                await session.execute(text("SELECT FROM note FOR UPDATE"))
    assert await pg.texts() == ["outer"]


async def test_unit_beside_a_function_that_joined_the_waiting_caller(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: of two tasks that the boundary waits for, one works in its context, and locks the
    row that the other one's own unit wants. The first one's work ends with the boundary only."""
    has_changed = asyncio.Event()

    async def joined() -> None:
        await change(db, "outer")
        has_changed.set()

    async def beside() -> None:
        await has_changed.wait()
        await in_the_same_task(db)

    async with transactional(name="import_day"), asyncio.timeout(SOON_S):
        with pytest.raises(PoolStarvationError, match="import_day"):
            await asyncio.gather(joined(), beside())
    assert await pg.texts() == ["outer"]


async def test_savepoint_in_the_unit_undoes_it(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        async with new_context(), asyncio.timeout(SOON_S):
            await write(db, "inner")
            with pytest.raises(PoolStarvationError):
                async with (await db_session(db)).begin_nested():
                    await change(db, "never")
            await write(db, "inner again")
    assert sorted(await pg.texts()) == ["inner", "inner again", "outer"]


async def test_error_swallowed_in_the_unit_dooms_it(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await change(db, "outer")
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with new_context():
                await write(db, "never")
                with pytest.raises(PoolStarvationError):
                    await change(db, "never")
        assert isinstance(caught.value.__cause__, PoolStarvationError)
    assert await pg.texts() == ["outer"]


@pytest.mark.parametrize("by_hand", [False, True], ids=["boundary", "by hand"])
async def test_commit_that_waits_for_its_callers_row(
    db: Database, pg: PostgresJudge, by_hand: bool
) -> None:
    """A deferred foreign key is looked at by COMMIT, which waits for whoever deletes the other row."""
    await pg.fetch("CREATE TABLE reply (note INT REFERENCES note DEFERRABLE INITIALLY DEFERRED)")
    async with transactional(name="import_day"):
        session: AsyncSession = await db_session(db)
        await session.execute(text("DELETE FROM note WHERE id = 1000"))
        async with asyncio.timeout(SOON_S):
            with pytest.raises(PoolStarvationError, match="import_day"):
                async with new_context(name="inner"):
                    other = await db_session(db)
                    await other.execute(text("INSERT INTO reply VALUES (1000)"))
                    if by_hand:
                        await commit_db_session(db)
    assert await pg.texts() == []
    assert await pg.fetch("SELECT * FROM reply") == []
