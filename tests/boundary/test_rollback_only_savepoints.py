"""Rollback-only inside blocks and savepoints, three levels deep: the innermost one is doomed.

On both backends.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.mistakes import swallowed
from tests.conftest import Place
from tests.notes import Boom, count, write
from tests.told import committed, rolled_back, watch
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    set_rollback_only,
    transactional,
)

UNITS = ("atomic", "nested", "begin_nested")
TRIPLES = [  # every pair of two levels is among them
    (UNITS[a], UNITS[b], UNITS[(a + b) % 3]) for a, b in itertools.product(range(3), repeat=2)
]


@contextlib.asynccontextmanager
async def unit(kind: str, db: Database) -> AsyncIterator[None]:
    """A unit that can be rolled back alone; an atomic one inside another transaction."""
    if kind == "begin_nested":
        async with (await db_session(db)).begin_nested():
            yield
    elif kind == "nested":
        async with transactional(propagation="nested", name="nested"):
            yield
    else:
        async with atomic(db, current_transaction="savepoint"):
            yield


@transactional(name="culprit")
async def culprit(db: Database) -> None:
    await write(db, "lost")
    raise Boom("no")


async def is_doomed(db: Database, first: BaseException) -> None:
    """What comes next is refused, from the original."""
    with pytest.raises(UnexpectedRollbackError, match="can only be") as refused:
        await count(db)
    assert refused.value.culprit == "culprit"
    assert refused.value.__cause__ is first


@pytest.mark.parametrize(("outer", "middle", "inner"), TRIPLES)
class TestThreeLevels:
    async def test_swallowed_inside_the_innermost_dooms_it_alone(
        self, place: Place, outer: str, middle: str, inner: str
    ) -> None:
        db = place.db
        async with transactional():
            await write(db, "a")
            async with unit(outer, db):
                await write(db, "b")
                async with unit(middle, db):
                    await write(db, "c")
                    with pytest.raises(UnexpectedRollbackError) as caught:
                        async with unit(inner, db):
                            await write(db, "lost")
                            with swallowed(Boom) as first:
                                await culprit(db)
                            await is_doomed(db, first.error)
                    assert caught.value.culprit == "culprit"
                    assert caught.value.__cause__ is first.error
                    await write(db, "d")
                await write(db, "e")
            await write(db, "f")
        assert await place.texts() == list("abcdef")

    async def test_failure_that_leaves_the_innermost_is_undone_with_it(
        self, place: Place, outer: str, middle: str, inner: str
    ) -> None:
        db = place.db
        async with transactional():
            await write(db, "a")
            async with unit(outer, db):
                await write(db, "b")
                async with unit(middle, db):
                    await write(db, "c")
                    with swallowed(Boom):
                        async with unit(inner, db):
                            await write(db, "lost")
                            await culprit(db)
                    await write(db, "d")
                await write(db, "e")
            await write(db, "f")
        assert await place.texts() == list("abcdef")

    async def test_failure_that_leaves_a_joined_call_too_dooms_the_one_around(
        self, place: Place, outer: str, middle: str, inner: str
    ) -> None:
        """Scenario: outer > middle > joined call > inner > culprit, swallowed in the middle.
        Outcome: the joined call failed in the middle unit, which is doomed; the outer is not."""
        db = place.db
        async with transactional():
            await write(db, "a")
            async with unit(outer, db):
                await write(db, "b")
                with pytest.raises(UnexpectedRollbackError) as caught:
                    async with unit(middle, db):
                        await write(db, "lost")
                        with swallowed(Boom) as first:
                            async with transactional(name="joined"):
                                async with unit(inner, db):
                                    await culprit(db)
                        with pytest.raises(UnexpectedRollbackError):
                            await count(db)
                assert caught.value.culprit == "joined"
                assert caught.value.__cause__ is first.error
                await write(db, "c")
            await write(db, "d")
        assert await place.texts() == list("abcd")


@pytest.mark.parametrize("kind", UNITS)
class TestOneLevel:
    async def test_failure_before_it_dooms_what_is_around_it(self, place: Place, kind: str) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                await write(place.db, "lost")
                with swallowed(Boom):
                    await culprit(place.db)
                with swallowed(UnexpectedRollbackError):
                    async with unit(kind, place.db):
                        await write(place.db, "lost too")
        assert (caught.value.function, caught.value.culprit) == ("unit", "culprit")
        assert isinstance(caught.value.__cause__, Boom)
        assert await place.texts() == []

    async def test_failure_after_it_dooms_what_is_around_it(self, place: Place, kind: str) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "lost")
                async with unit(kind, place.db):
                    await write(place.db, "lost")
                with swallowed(Boom):
                    await culprit(place.db)
        assert await place.texts() == []

    async def test_doomed_ten_times_commits_what_is_around_it(
        self, place: Place, kind: str
    ) -> None:
        async with transactional():
            for number in range(10):
                with pytest.raises(UnexpectedRollbackError):
                    async with unit(kind, place.db):
                        with swallowed(Boom):
                            await culprit(place.db)
                await write(place.db, str(number))
        assert await place.texts() == list("0123456789")

    async def test_hooks_of_the_doomed_one_alone_are_told(self, place: Place, kind: str) -> None:
        told: list[str] = []
        async with transactional():
            await write(place.db, "kept")
            watch(told, "unit")
            with swallowed(UnexpectedRollbackError):
                async with unit(kind, place.db):
                    await write(place.db, "lost")
                    watch(told, "inner")
                    with swallowed(Boom):
                        await culprit(place.db)
            assert told == rolled_back("inner")
            told.clear()
        assert told == committed("unit")

    async def test_joined_request_dooms_it_with_its_reason(self, place: Place, kind: str) -> None:
        @transactional(name="service")
        async def service() -> None:
            set_rollback_only("no stock")

        async with transactional():
            await write(place.db, "kept")
            with pytest.raises(UnexpectedRollbackError) as caught:
                async with unit(kind, place.db):
                    await write(place.db, "lost")
                    await service()
            assert (caught.value.culprit, caught.value.reason) == ("service", "no stock")
        assert await place.texts() == ["kept"]


@BOTH_FACES
async def test_block_with_its_own_transaction_is_doomed_alone(place: Place, run: Run) -> None:
    async def body() -> None:
        await write(place.db, "lost")
        with swallowed(Boom) as first:
            await culprit(place.db)
        await is_doomed(place.db, first.error)

    async with transactional():
        await write(place.db, "kept")
        await commit_db_session(place.db)
        with pytest.raises(UnexpectedRollbackError) as caught:
            await run(atomic(place.db), body)
        assert caught.value.culprit == "culprit"
        await write(place.db, "kept too")
    assert await place.texts() == ["kept", "kept too"]
