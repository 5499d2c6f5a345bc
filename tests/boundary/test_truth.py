"""A database error that somebody swallowed: nothing is committed, and nothing says so. On both backends.

The judge is a second connection; the error that leaves is the first one's
``UnexpectedRollbackError``, from the next statement and from the end alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.faces import Run, as_block, as_function
from tests.boundary.mistakes import SENT, Mistake, driver, statement, swallowed
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import write
from tests.told import rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    atomic,
    atomic_db_session,
    commit_db_session,
    db_session,
    transactional,
)

EVERY_MISTAKE = pytest.mark.parametrize("mistake", SENT.values(), ids=list(SENT))


@pytest.mark.parametrize(
    ("run", "mistake"),
    [(as_function, statement), *((as_block, mistake) for mistake in SENT.values())],
)
async def test_end_raises_from_the_swallowed_error(
    place: Place, run: Run, mistake: Mistake
) -> None:
    told: list[str] = []

    async def body() -> None:
        nonlocal first
        watch(told, "unit")
        await write(place.db, "lost")
        with swallowed() as first:
            await mistake(await db_session(place.db))

    first: Any = None
    with pytest.raises(UnexpectedRollbackError, match="was rolled back") as caught:
        await run(transactional(name="unit"), body)
    assert _is_cause(caught.value, first.error)
    assert (caught.value.function, caught.value.culprit) == ("unit", "unit")
    assert await place.texts() == []
    assert told == rolled_back("unit")
    await transactional(write)(place.db, "next")
    assert await place.texts() == ["next"]


@EVERY_MISTAKE
async def test_next_statement_raises_from_the_swallowed_error(
    place: Place, mistake: Mistake
) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional(name="unit"):
            await write(place.db, "lost")
            session = await db_session(place.db)
            with swallowed() as first:
                await mistake(session)
            for _ in range(2):
                with pytest.raises(UnexpectedRollbackError, match="can only be") as refused:
                    await session.execute(text("SELECT 1"))
                assert _is_cause(refused.value, first.error)
                assert (refused.value.function, refused.value.culprit) == ("unit", "unit")
    assert _is_cause(caught.value, first.error)
    assert await place.texts() == []


def _is_cause(error: BaseException, first: BaseException) -> bool:
    """Whether it was raised from the first; autoflush and 2.0's cursors raise a copy of it."""
    cause = error.__cause__
    return cause is first or getattr(cause, "orig", None) is getattr(first, "orig", first)


async def _flush(session: AsyncSession) -> None:
    session.add(Note(text="lost too"))
    await session.flush()


async def _commit_after_add(session: AsyncSession) -> None:
    session.add(Note(text="lost too"))
    await session.commit()


async def _begin_nested(session: AsyncSession) -> None:
    async with session.begin_nested():
        raise AssertionError


NEXT: dict[str, Callable[[AsyncSession], Awaitable[Any]]] = {
    "execute": lambda session: session.execute(text("SELECT 1")),
    "orm select": lambda session: session.scalars(select(Note)),
    "stream": lambda session: session.stream(text("SELECT 1")),
    "get": lambda session: session.get(Note, 1),
    "flush": _flush,
    "connection": lambda session: session.connection(),
    "raw driver": driver,
    "run_sync": lambda session: session.run_sync(lambda sync: sync.execute(text("SELECT 1"))),
    "savepoint": _begin_nested,
    "commit": lambda session: session.commit(),
    "commit with changes": _commit_after_add,
}


class TestNext:
    """What comes next is refused before anything of it is sent, whatever it is."""

    @pytest.mark.parametrize("following", NEXT.values(), ids=list(NEXT))
    async def test_is_refused_on_the_session(
        self, place: Place, following: Callable[[AsyncSession], Awaitable[object]]
    ) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "lost")
                session = await db_session(place.db)
                with swallowed() as first:
                    await statement(session)
                with pytest.raises(UnexpectedRollbackError) as refused:
                    await following(session)
                assert refused.value.__cause__ is first.error
        assert await place.texts() == []

    @pytest.mark.parametrize("following", ["commit", "savepoint", "left out", "seed's"])
    async def test_is_refused_at_a_blocks_entry(self, place: Place, following: str) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "lost")
                with swallowed() as first:
                    await statement(await db_session(place.db))
                with pytest.raises(UnexpectedRollbackError) as refused:
                    if following == "left out":
                        block = atomic(place.db)
                    elif following == "seed's":
                        block = atomic_db_session(place.db)
                    else:
                        block = atomic(place.db, current_transaction=following)
                    async with block:
                        await write(place.db, "lost too")
                assert refused.value.__cause__ is first.error
        assert await place.texts() == []

    async def test_is_refused_as_a_commit_by_hand(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional(name="unit"):
                await write(place.db, "lost")
                with swallowed() as first:
                    await statement(await db_session(place.db))
                with pytest.raises(UnexpectedRollbackError, match="can only be") as refused:
                    await commit_db_session(place.db)
                assert refused.value.__cause__ is first.error
        assert await place.texts() == []

    async def test_is_refused_in_a_function_that_joins(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                with swallowed() as first:
                    await statement(await db_session(place.db))
                with pytest.raises(UnexpectedRollbackError) as refused:
                    await transactional(write)(place.db, "lost")
                assert refused.value.__cause__ is first.error
        assert caught.value.__cause__ is first.error
        assert await place.texts() == []
