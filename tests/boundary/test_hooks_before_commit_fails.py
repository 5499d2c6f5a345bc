"""What a before_commit hook fails, and where it is not run at all. On both backends."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest
from sqlalchemy import text

from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import rolled_back, watch
from tests.ways import BY_HAND, UNITS, WHOLE, Unit, each
from txkit import (
    Database,
    TransactionTimeoutError,
    UnexpectedRollbackError,
    after_commit,
    after_completion,
    after_rollback,
    before_commit,
    db_session,
    new_context,
    set_rollback_only,
    transactional,
)

every_way = each("unit", UNITS)


def limited(_: Database) -> AbstractAsyncContextManager[object]:
    return transactional(timeout_s=0.3)


def limited_new_context(_: Database) -> AbstractAsyncContextManager[object]:
    return new_context(timeout_s=0.3)


@every_way
class TestFailure:
    async def test_exception_of_a_hook_leaves_and_rolls_back(
        self, place: Place, unit: Unit
    ) -> None:
        """Those after it in the round don't run."""
        told: list[str] = []

        async def fails() -> None:
            await write(place.db, "lost too")
            raise Boom

        with pytest.raises(Boom):
            async with unit(place.db):
                await write(place.db, "lost")
                before_commit(fails)
                watch(told, "unit")
        assert told == rolled_back("unit")
        assert await place.texts() == []

    async def test_database_error_that_a_hook_swallows_is_told(
        self, place: Place, unit: Unit
    ) -> None:
        told: list[str] = []

        async def swallows() -> None:
            with pytest.raises(Exception, match="nowhere"):
                await (await db_session(place.db)).execute(text("INSERT INTO nowhere VALUES (1)"))

        with pytest.raises(UnexpectedRollbackError, match="nowhere") as caught:
            async with unit(place.db):
                await write(place.db, "lost")
                before_commit(swallows)
                after_commit(lambda: told.append("commit"))
                after_rollback(lambda: told.append("rollback"))
        assert "nowhere" in str(caught.value.__cause__)
        assert told == ["rollback"]
        assert await place.texts() == []

    async def test_joined_failure_that_a_hook_swallows_is_told(
        self, place: Place, unit: Unit
    ) -> None:
        told: list[str] = []

        @transactional
        async def culprit() -> None:
            raise Boom

        async def swallows() -> None:
            with pytest.raises(Boom):
                await culprit()

        with pytest.raises(UnexpectedRollbackError, match="culprit") as caught:
            async with unit(place.db):
                await write(place.db, "lost")
                before_commit(swallows)
                after_commit(lambda: told.append("commit"))
                after_rollback(lambda: told.append("rollback"))
        assert isinstance(caught.value.__cause__, Boom)
        assert told == ["rollback"]
        assert await place.texts() == []

    async def test_flush_that_fails_after_a_round_leaves(self, place: Place, unit: Unit) -> None:
        told: list[str] = []

        async def adds() -> None:
            (await db_session(place.db)).add(Note(text=None))  # type: ignore[arg-type]

        with pytest.raises(Exception, match="NOT NULL|not-null"):
            async with unit(place.db):
                await write(place.db, "lost")
                before_commit(adds)
                after_commit(lambda: told.append("commit"))
                after_rollback(lambda: told.append("rollback"))
        assert told == ["rollback"]
        assert await place.texts() == []


@each("unit", [limited, limited_new_context])
async def test_time_limit_that_passes_in_a_hook_rolls_back(place: Place, unit: Unit) -> None:
    """``timeout_s`` runs until COMMIT is sent, and a hook before it is part of that."""
    told: list[str] = []
    with pytest.raises(TransactionTimeoutError):
        async with unit(place.db):
            await write(place.db, "lost")
            before_commit(asyncio.Event().wait)
            after_completion(told.append)
    assert told == ["rolled_back"]
    assert await place.texts() == []


class TestRequest:
    @each("unit", WHOLE)
    async def test_hook_may_ask_for_the_rollback(self, place: Place, unit: Unit) -> None:
        told: list[str] = []
        async with unit(place.db):
            await write(place.db, "lost")
            before_commit(set_rollback_only)
            after_commit(lambda: told.append("commit"))
            after_rollback(lambda: told.append("rollback"))
        assert told == ["rollback"]
        assert await place.texts() == []

    @each("unit", BY_HAND)
    async def test_commit_by_hand_is_refused_once_a_hook_has_asked(
        self, place: Place, unit: Unit
    ) -> None:
        with pytest.raises(UnexpectedRollbackError, match="asked for that itself"):
            async with unit(place.db):
                await write(place.db, "lost")
                before_commit(set_rollback_only)
        assert await place.texts() == []


class TestNotRun:
    @pytest.mark.parametrize("why", ["exception", "request", "joined", "result"])
    async def test_unit_that_rolls_back_skips_it(self, place: Place, why: str) -> None:
        told: list[str] = []

        @transactional
        async def culprit() -> None:
            raise Boom

        @transactional(outcome=lambda _, error: error is None and why != "result")
        async def unit() -> None:
            before_commit(lambda: told.append("before"))
            await write(place.db, "lost")
            if why == "request":
                set_rollback_only()
            elif why == "joined":
                with pytest.raises(Boom):
                    await culprit()
            elif why == "exception":
                raise Boom

        if why in {"exception", "joined"}:
            with pytest.raises((Boom, UnexpectedRollbackError)):
                await unit()
        else:
            await unit()
        assert told == []
        assert await place.texts() == []

    async def test_swallowed_database_error_skips_it(self, place: Place) -> None:
        told: list[str] = []
        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                before_commit(lambda: told.append("before"))
                with pytest.raises(Exception, match="nowhere"):
                    await (await db_session(place.db)).execute(text("DELETE FROM nowhere"))
        assert told == []


class TestUnderARuleThatCommits:
    """An exception leaves, and the rules commit: the hooks run, and can still prevent it."""

    @pytest.mark.parametrize("does", ["works", "raises", "asks"])
    async def test_users_exception_leaves_whatever_the_hook_does(
        self, place: Place, does: str
    ) -> None:
        told: list[str] = []

        async def hook() -> None:
            await write(place.db, "hook")
            if does == "raises":
                raise KeyError(does)
            if does == "asks":
                set_rollback_only()

        @transactional(no_rollback_for=Boom)
        async def unit() -> None:
            await write(place.db, "body")
            before_commit(hook)
            watch(told, "unit")
            raise Boom

        with pytest.raises(Boom) as caught:
            await unit()
        notes = "\n".join(getattr(caught.value, "__notes__", []))
        assert ("KeyError" in notes) == (does == "raises")
        if does == "works":
            assert await place.texts() == ["body", "hook"]
            assert told[-1] == "unit: committed"
        else:
            assert await place.texts() == []
            assert told[-2:] == rolled_back("unit")
