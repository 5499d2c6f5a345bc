"""Listeners of the user's to SQLAlchemy's session events that raise. On both backends.

What is committed stays so, its hooks are told, and who waits for the connection gets it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_atomic import Note
from tests.conftest import Place, opened
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from tests.ways import COMMITS, UNITS, End, Unit, each
from txkit import (
    AfterCommitError,
    Database,
    after_commit,
    atomic,
    db_session,
    new_non_ctx_atomic_session,
    transactional,
)


class Listened(Session):
    """What the user's listeners are on; ``failing`` is the event at which they raise."""

    failing: str | None = None


class Broken(Exception):
    """What a listener raises."""


@event.listens_for(Listened, "after_commit")
def _after_commit(_: Session) -> None:
    if Listened.failing == "after_commit":
        raise Broken


@event.listens_for(Listened, "after_transaction_end")
def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    is_broken = transaction.parent is None and "broken" in session.info
    if is_broken and Listened.failing == "after_transaction_end":
        raise Broken


@contextmanager
def failing(name: str) -> Iterator[None]:
    """Let the listeners of one event raise."""
    Listened.failing = name
    try:
        yield
    finally:
        Listened.failing = None


def listened(engine: AsyncEngine) -> async_sessionmaker[Any]:
    return async_sessionmaker(engine, sync_session_class=Listened, expire_on_commit=False)


def broken(engine: AsyncEngine) -> async_sessionmaker[Any]:
    return async_sessionmaker(engine, sync_session_class=Listened, info={"broken": True})


@pytest.fixture
async def single(place: Place) -> AsyncIterator[Database]:
    """On one connection, with listeners: where it was not given back, the next unit is refused."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
    async for db in opened(place.judge, session_factory=listened, **options):
        yield db


async def works(db: Database, place: Place, *before: str) -> None:
    assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await place.texts() == list(before)
    await transactional(write)(db, "next")
    assert await place.texts() == [*before, "next"]


class TestAfterCommit:
    @each("unit", UNITS)
    async def test_is_told_as_a_failed_hook_and_the_row_is_there(
        self, single: Database, place: Place, unit: Unit
    ) -> None:
        told: list[str] = []
        with failing("after_commit"), pytest.raises(AfterCommitError) as caught:
            async with unit(single):
                await write(single, "kept")
                watch(told, "unit")
        assert [type(one) for one in caught.value.exceptions] == [Broken]
        assert told == committed("unit")
        await works(single, place, "kept")

    @BOTH_FACES
    async def test_decorated_functions_result_is_kept(
        self, single: Database, place: Place, run: Run
    ) -> None:
        async def body() -> str:
            await write(single, "kept")
            return "result"

        with failing("after_commit"), pytest.raises(AfterCommitError) as caught:
            await run(transactional(), body)
        assert (await place.texts(), len(caught.value.exceptions)) == (["kept"], 1)

    @each("commit", COMMITS)
    async def test_caught_the_unit_goes_on(
        self, single: Database, place: Place, commit: End
    ) -> None:
        told: list[str] = []
        async with transactional():
            await write(single, "kept")
            watch(told, "first")
            with failing("after_commit"), pytest.raises(AfterCommitError):
                await commit(single)
            assert told == committed("first")
            await write(single, "kept too")
        await works(single, place, "kept", "kept too")

    async def test_caught_from_a_block_the_unit_goes_on(
        self, single: Database, place: Place
    ) -> None:
        async with transactional():
            with failing("after_commit"), pytest.raises(AfterCommitError) as caught:
                async with atomic(single):
                    await write(single, "kept")
            assert [type(one) for one in caught.value.exceptions] == [Broken]
            assert await place.texts() == ["kept"]
            await write(single, "kept too")
        await works(single, place, "kept", "kept too")

    async def test_in_a_session_outside_any_context(self, single: Database, place: Place) -> None:
        with failing("after_commit"), pytest.raises(AfterCommitError) as caught:
            async with new_non_ctx_atomic_session(single) as session:
                session.add(Note(text="kept"))
        assert [type(one) for one in caught.value.exceptions] == [Broken]
        await works(single, place, "kept")


class TestAfterTransactionEnd:
    """Of a Database that did nothing, beside one that did."""

    @pytest.mark.parametrize("used_first", [True, False])
    async def test_other_one_is_rolled_back_all_the_same(
        self, place: Place, single: Database, used_first: bool
    ) -> None:
        told: list[str] = []
        async for idle in opened(place.judge, name="idle", session_factory=broken):
            with failing("after_transaction_end"), pytest.raises(Boom):
                async with transactional():
                    if used_first:
                        await write(single, "lost")
                    (await db_session(idle)).add(Note(text="never sent"))
                    if not used_first:
                        await write(single, "lost")
                    watch(told, "unit")
                    raise Boom
        assert told == rolled_back("unit")
        await works(single, place)

    async def test_other_one_is_committed_all_the_same(
        self, place: Place, single: Database
    ) -> None:
        told: list[str] = []
        async for idle in opened(place.judge, name="idle", session_factory=broken):
            with failing("after_transaction_end"), pytest.raises(AfterCommitError) as caught:
                async with transactional():
                    await write(single, "kept")
                    await (await db_session(idle)).run_sync(lambda session: session.begin())
                    watch(told, "unit")
            assert [type(one) for one in caught.value.exceptions] == [Broken]
        assert told == committed("unit")
        await works(single, place, "kept")


@event.listens_for(Listened, "before_commit")
def _registers(session: Session) -> None:
    told: list[str] | None = session.info.get("told")
    if told is not None:
        after_commit(lambda: told.append("committed"))


@pytest.mark.parametrize("changes", [False, True], ids=["sent", "pending"])
@BOTH_FACES
async def test_listener_may_register_a_hook_while_the_unit_is_being_ended(
    place: Place, single: Database, run: Run, changes: bool
) -> None:
    told: list[str] = []

    async def body() -> None:
        session = await db_session(single)
        session.sync_session.info["told"] = told
        if changes:
            session.add(Note(text="kept"))
        else:
            await write(single, "kept")

    await run(transactional(), body)
    assert told == ["committed"]
    assert await place.texts() == ["kept"]
