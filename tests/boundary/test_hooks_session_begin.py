"""Hooks around ``async with session.begin()``, the user's own transaction. On both backends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.boundary.test_atomic import Note
from tests.boundary.test_timeouts import ENOUGH_S
from tests.conftest import Place
from tests.notes import Boom, count, write
from tests.told import committed, rolled_back, watch
from tests.ways import (
    Unit,
    by_commit_first,
    by_function,
    by_session,
    by_session_begin,
    each,
)
from txkit import (
    AfterCommitError,
    Database,
    TransactionTimeoutError,
    after_commit,
    atomic,
    before_commit,
    commit_db_session,
    db_session,
    set_rollback_only,
    transactional,
)


def fails() -> None:
    raise KeyError("of the hook")


@contextlib.asynccontextmanager
async def own_commit(db: Database) -> AsyncIterator[None]:
    """Begin, and commit by the method of the transaction."""
    transaction = await (await db_session(db)).begin()
    yield
    await transaction.commit()


@contextlib.asynccontextmanager
async def own_block(db: Database) -> AsyncIterator[None]:
    async with (await db_session(db)).begin():
        yield


OWN: list[Unit] = [own_block, own_commit]


class TestOnlyPendingChanges:
    """Nothing was sent: what is rolled back has been a unit of work all the same."""

    async def test_rolled_back_block_tells(self, place: Place) -> None:
        told: list[str] = []
        async with transactional():
            with pytest.raises(Boom):
                async with (await db_session(place.db)).begin():
                    (await db_session(place.db)).add(Note(text="lost"))
                    watch(told, "unit")
                    raise Boom
            assert told == rolled_back("unit")
        assert told == rolled_back("unit")
        assert await place.texts() == []

    @pytest.mark.parametrize("begun", [True, False])
    async def test_rollback_by_its_own_method_tells(self, place: Place, begun: bool) -> None:
        told: list[str] = []
        async with transactional():
            session = await db_session(place.db)
            if begun:
                await session.begin()
            session.add(Note(text="lost"))
            watch(told, "unit")
            transaction = session.get_transaction()
            assert transaction is not None
            await transaction.rollback()
            assert told == rolled_back("unit")
        assert told == rolled_back("unit")
        assert await place.texts() == []


@each("own", OWN)
class TestFailedAfterCommitHook:
    async def test_is_told_by_the_commit_and_not_again(self, place: Place, own: Unit) -> None:
        told: list[str] = []
        async with transactional():
            with pytest.raises(AfterCommitError) as caught:
                async with own(place.db):
                    await write(place.db, "kept")
                    after_commit(fails)
                    watch(told, "unit")
            assert [type(one) for one in caught.value.exceptions] == [KeyError]
            assert told == committed("unit")
            assert await place.texts() == ["kept"]
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]

    @pytest.mark.parametrize("then", ["raise", "request", "rollback", "commit", "atomic"])
    async def test_other_ends_afterwards_know_nothing_of_it(
        self, place: Place, own: Unit, then: str
    ) -> None:
        @transactional
        async def unit() -> None:
            with pytest.raises(AfterCommitError):
                async with own(place.db):
                    await write(place.db, "kept")
                    after_commit(fails)
            if then == "rollback":
                await (await db_session(place.db)).rollback()
            elif then == "atomic":
                async with atomic(place.db):
                    await write(place.db, "more")
            else:
                await write(place.db, "more")
            if then == "request":
                set_rollback_only()
            elif then == "commit":
                await commit_db_session(place.db)
            elif then == "raise":
                raise Boom

        if then == "raise":
            with pytest.raises(Boom) as caught:
                await unit()
            assert not hasattr(caught.value, "__notes__")
        else:
            await unit()
        assert await place.texts() == ["kept"] + ["more"] * (then in {"commit", "atomic"})

    async def test_uncaught_it_rolls_back_what_came_afterwards(
        self, place: Place, own: Unit
    ) -> None:
        told: list[str] = []
        with pytest.raises(AfterCommitError):
            async with transactional():
                async with own(place.db):
                    await write(place.db, "kept")
                    after_commit(fails)
                told.append("not reached")
        assert told == []
        assert await place.texts() == ["kept"]


@each("unit", [by_session_begin, by_session, by_function, by_commit_first])
class TestBrokenOffInABeforeCommitHook:
    """It is the caller's task that runs the hook: it may be cancelled, and be out of time."""

    async def test_cancelled_it_rolls_back(self, place: Place, unit: Unit) -> None:
        told: list[str] = []
        reached = asyncio.Event()
        tasks: list[object] = []

        async def hook() -> None:
            tasks.append(asyncio.current_task())
            reached.set()
            await asyncio.Event().wait()

        async def run() -> None:
            async with unit(place.db):
                await write(place.db, "lost")
                watch(told, "unit")
                before_commit(hook)

        task = asyncio.create_task(run())
        async with asyncio.timeout(20):
            await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(20):
                await task
        assert tasks == [task]
        assert told[-2:] == rolled_back("unit")
        assert "unit: after commit" not in told
        assert await place.texts() == []

    async def test_out_of_time_it_rolls_back(self, place: Place, unit: Unit) -> None:
        told: list[str] = []
        await transactional(count)(place.db)  # connected
        with pytest.raises(TransactionTimeoutError):
            async with transactional(timeout_s=ENOUGH_S), unit(place.db):
                await write(place.db, "lost")
                watch(told, "unit")
                before_commit(asyncio.Event().wait)
        assert told[-2:] == rolled_back("unit")
        assert "unit: after commit" not in told
        assert await place.texts() == []
