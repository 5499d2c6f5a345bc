"""Wherever a database error is swallowed, it dooms the unit that it happened in, and no other.

Joined calls, hooks, blocks, savepoints. On both backends.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.boundary.faces import BOTH_FACES, Run, as_block, as_function, is_postgres
from tests.boundary.mistakes import (
    ANY,
    Mistake,
    autoflush,
    executemany,
    statement,
    stream,
    swallowed,
)
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    after_commit,
    atomic,
    atomic_db_session,
    before_commit,
    commit_db_session,
    db_session,
    new_context,
    transactional,
)

SOME_MISTAKES = pytest.mark.parametrize("mistake", [statement, executemany, autoflush])


EVERY_MISTAKE = pytest.mark.parametrize("mistake", ANY.values(), ids=list(ANY))
EVERY_MISTAKE_AND_FACE = pytest.mark.parametrize(
    ("run", "mistake"),
    [(as_function, statement), *((as_block, mistake) for mistake in ANY.values())],
)


async def make(place: Place, mistake: Mistake) -> None:
    """Write, then make the mistake and let it leave."""
    await write(place.db, "lost")
    await mistake(await db_session(place.db))


def is_seen(place: Place, mistake: Mistake) -> bool:
    """Whether somebody knows of the error when it happens: who made it can be told."""
    return mistake is not stream or not is_postgres(place)


async def swallow(place: Place, mistake: Mistake) -> None:
    """Write, then make the mistake and say nothing."""
    with swallowed():
        await make(place, mistake)


class TestJoined:
    @SOME_MISTAKES
    @BOTH_FACES
    async def test_swallowed_inside_names_the_joined_call(
        self, place: Place, run: Run, mistake: Mistake
    ) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                await write(place.db, "lost")
                await run(transactional(name="service"), lambda: swallow(place, mistake))
        assert (caught.value.function, caught.value.culprit) == ("unit", "service")
        assert await place.texts() == []

    @SOME_MISTAKES
    @BOTH_FACES
    async def test_swallowed_by_the_caller_names_the_joined_call(
        self, place: Place, run: Run, mistake: Mistake
    ) -> None:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                with swallowed() as first:
                    await run(transactional(name="service"), lambda: make(place, mistake))
        assert (caught.value.function, caught.value.culprit) == ("unit", "service")
        assert caught.value.__cause__ is first.error
        assert await place.texts() == []

    async def test_three_levels_deep_names_the_innermost(self, place: Place) -> None:
        @transactional(name="innermost")
        async def innermost() -> None:
            await make(place, statement)

        @transactional(name="middle")
        async def middle() -> None:
            with swallowed():
                await innermost()

        @transactional(name="unit")
        async def unit() -> None:
            await middle()

        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit()
        assert (caught.value.function, caught.value.culprit) == ("unit", "innermost")
        assert await place.texts() == []

    async def test_rule_of_the_joined_call_can_not_allow_it(self, place: Place) -> None:
        """Its exception would not doom the unit; the database's answer does."""
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                with swallowed():
                    async with transactional(no_rollback_for=Exception):
                        await make(place, statement)
        assert await place.texts() == []


class TestHook:
    @EVERY_MISTAKE
    async def test_before_commit_that_swallowed_it(self, place: Place, mistake: Mistake) -> None:
        told: list[str] = []
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                watch(told, "unit")
                await write(place.db, "lost")
                before_commit(lambda: swallow(place, mistake))
        assert await place.texts() == []
        assert told == ["unit: before", *rolled_back("unit")]

    async def test_before_commit_of_an_atomic_block(self, place: Place) -> None:
        async with transactional():
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(place.db):
                    before_commit(lambda: swallow(place, statement))
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    @pytest.mark.parametrize("by", ["function", "session"])
    async def test_before_commit_of_a_commit_by_hand(self, place: Place, by: str) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "lost")
                before_commit(lambda: swallow(place, statement))
                with pytest.raises(UnexpectedRollbackError):
                    if by == "function":
                        await commit_db_session(place.db)
                    else:
                        await (await db_session(place.db)).commit()
        assert await place.texts() == []

    async def test_unit_in_after_commit_dooms_itself_alone(self, place: Place) -> None:
        async def follow() -> None:
            with pytest.raises(UnexpectedRollbackError):
                await transactional(swallow)(place, statement)

        async with transactional():
            await write(place.db, "kept")
            after_commit(follow)
        assert await place.texts() == ["kept"]


class TestBlock:
    """What encloses the block is as it was, and commits."""

    @EVERY_MISTAKE_AND_FACE
    async def test_atomic_with_its_own_transaction(
        self, place: Place, run: Run, mistake: Mistake
    ) -> None:
        async with transactional(name="unit"):
            with pytest.raises(UnexpectedRollbackError) as caught:
                await run(atomic(place.db), lambda: swallow(place, mistake))
            assert "faces" in caught.value.function
            if is_seen(place, mistake):
                assert caught.value.culprit == caught.value.function
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    @EVERY_MISTAKE_AND_FACE
    async def test_atomic_as_a_savepoint(self, place: Place, run: Run, mistake: Mistake) -> None:
        async with atomic(place.db):
            await write(place.db, "kept")
            with pytest.raises(UnexpectedRollbackError):
                await run(atomic(place.db), lambda: swallow(place, mistake))
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]

    @EVERY_MISTAKE_AND_FACE
    async def test_nested(self, place: Place, run: Run, mistake: Mistake) -> None:
        nested = transactional(propagation="nested", name="nested")
        async with transactional():
            await write(place.db, "kept")
            with pytest.raises(UnexpectedRollbackError) as caught:
                await run(nested, lambda: swallow(place, mistake))
            if is_seen(place, mistake):
                assert (caught.value.function, caught.value.culprit) == ("nested", "nested")
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]

    @pytest.mark.parametrize("mode", ["append", "savepoint", "commit", "rollback"])
    async def test_atomic_with_every_mode(self, place: Place, mode: str) -> None:
        before = {"append": [], "savepoint": ["before"], "commit": ["before"], "rollback": []}
        async with transactional():
            await write(place.db, "before")
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(place.db, current_transaction=mode):
                    await swallow(place, statement)
            await write(place.db, "kept")
        assert await place.texts() == [*before[mode], "kept"]

    @pytest.mark.parametrize("opens", [atomic, atomic_db_session])
    async def test_at_the_top(self, place: Place, opens: Callable) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with opens(place.db):
                await swallow(place, statement)
        assert await place.texts() == []

    async def test_new_context_inside(self, place: Place) -> None:
        async with transactional():
            with pytest.raises(UnexpectedRollbackError):
                await new_context(swallow)(place, statement)
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_unit_outside_of_a_block_dooms_more_than_the_block(self, place: Place) -> None:
        """An error made before a savepoint is not undone with it."""
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                await swallow(place, statement)
                with swallowed(Boom):
                    async with transactional(propagation="nested"):
                        raise Boom
        assert caught.value.function == "unit"
        assert await place.texts() == []
