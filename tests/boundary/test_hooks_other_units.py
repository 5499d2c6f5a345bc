"""To whom a hook belongs: a block that used no Database, a new context, a session of one's own.

On both backends, as a decorated function and as a block.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.conftest import Place, PostgresJudge
from tests.notes import Boom, count, write
from tests.told import committed, rolled_back, watch
from txkit import (
    atomic,
    new_context,
    new_non_ctx_atomic_session,
    set_rollback_only,
    transactional,
)


@BOTH_FACES
class TestNoDatabaseUsed:
    @pytest.mark.parametrize("ends", ["returns", "raises", "asks"])
    async def test_block_in_a_boundary_runs_its_hooks_at_its_end(self, run: Run, ends: str) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "block")
            if ends == "raises":
                raise Boom
            if ends == "asks":
                set_rollback_only()

        async with transactional():
            if ends == "raises":
                with pytest.raises(Boom):
                    await run(atomic(), body)
            else:
                await run(atomic(), body)
            expected = committed("block") if ends == "returns" else rolled_back("block")
            assert told == expected
        assert told == expected

    @pytest.mark.parametrize("inner", [atomic(), transactional(propagation="nested")])
    @pytest.mark.parametrize("outer_fails", [False, True])
    async def test_block_in_a_block_hands_its_hooks_over(
        self, place: Place, run: Run, inner: Any, outer_fails: bool
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "inner")

        async def unit() -> None:
            async with atomic():
                await run(inner, body)
                await write(place.db, "a")
                assert told == []
                if outer_fails:
                    raise Boom

        async with transactional():
            if outer_fails:
                with pytest.raises(Boom):
                    await unit()
            else:
                await unit()
            assert told == (rolled_back("inner") if outer_fails else committed("inner"))

    @pytest.mark.parametrize("fails", [False, True])
    async def test_nested_in_a_boundary_hands_its_hooks_to_the_boundary(
        self, run: Run, fails: bool
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "nested")
            if fails:
                raise Boom

        async with transactional():
            if fails:
                with pytest.raises(Boom):
                    await run(transactional(propagation="nested"), body)
                assert told == rolled_back("nested")
                told.clear()
            else:
                await run(transactional(propagation="nested"), body)
            assert told == []
        assert told == ([] if fails else committed("nested"))


NEW: dict[str, Any] = {
    "new_context": new_context(),
    "requires_new": transactional(propagation="requires_new"),
}


@BOTH_FACES
@pytest.mark.parametrize("unit", NEW.values(), ids=NEW)
class TestNewContext:
    async def test_hooks_belong_to_the_new_context(self, place: Place, run: Run, unit: Any) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "inner")
            await write(place.db, "kept")

        with pytest.raises(Boom):
            async with transactional():
                watch(told, "outer")
                await run(unit, body)
                assert told == committed("inner")
                told.clear()
                watch(told, "outer too")
                raise Boom
        assert told == rolled_back("outer", "outer too")
        assert await place.texts() == ["kept"]

    async def test_callers_hooks_do_not_see_its_failure(
        self, place: Place, run: Run, unit: Any
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "inner")
            await write(place.db, "lost")
            raise Boom

        async with transactional():
            watch(told, "outer")
            with pytest.raises(Boom):
                await run(unit, body)
            assert told == rolled_back("inner")
            told.clear()
        assert told == committed("outer")


async def test_own_session_settles_no_hooks_of_the_context(place: Place) -> None:
    """It is owned by nobody: what it commits says nothing about the unit around it."""
    told: list[str] = []
    with pytest.raises(Boom):
        async with transactional():
            watch(told, "unit")
            if isinstance(place.judge, PostgresJudge):  # SQLite has one writer
                await count(place.db)
            async with new_non_ctx_atomic_session(place.db) as session:
                watch(told, "inside")
                await session.connection()
            assert told == []
            raise Boom
    assert told == rolled_back("unit", "inside")
