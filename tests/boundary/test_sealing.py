"""What is declared atomic is ended by nobody inside it: refused before anything is sent.

Every way to end, in every kind of block, on both backends; the statements are read
off the wire. A caught refusal leaves the block working.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.boundary.controls import BLOCKS, CONTROLS, OF_THE_SESSION, block, control
from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, count, write
from tests.wire import Watched, watched
from txkit import (
    AtomicControlError,
    UnexpectedRollbackError,
    atomic,
    before_commit,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    transactional,
)


@pytest.fixture
async def seen(place: Place) -> AsyncIterator[Watched]:
    async for one in watched(place):
        yield one


@pytest.mark.parametrize("kind", BLOCKS)
async def test_every_end_is_refused_and_the_block_goes_on(seen: Watched, kind: str) -> None:
    """Scenario: each way to end is tried in turn, with a row written and an object pending.
    Outcome: nothing is sent, nothing is lost, and in the end the block commits all of it."""
    expected: list[str] = []
    async with block(kind, seen.db):
        session = await db_session(seen.db)
        for name in CONTROLS:
            await write(seen.db, name)
            session.add(Note(text=f"added before {name}"))
            before = seen.sent[:]
            with pytest.raises(AtomicControlError) as caught:
                await control(name, seen.db)
            assert seen.sent == before, name
            assert "block in tests.boundary.controls.block" in caught.value.function
            assert await db_session(seen.db) is session, name
            expected += [name, f"added before {name}"]
        assert await seen.texts() == []
    texts = [text for text in await seen.texts() if text != "before"]
    assert sorted(texts) == sorted(expected)


@pytest.mark.parametrize("name", CONTROLS)
async def test_end_is_refused_alone(seen: Watched, name: str) -> None:
    async with transactional():
        async with atomic(seen.db):
            await write(seen.db, "a")
            with pytest.raises(AtomicControlError):
                await control(name, seen.db)
            await write(seen.db, "b")
            assert await seen.texts() == []
        assert seen.verbs() == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    assert await seen.texts() == ["a", "b"]


async def test_every_end_is_refused_before_the_first_statement(seen: Watched) -> None:
    nothing_to_end = {"root commit", "sync prepare"}
    async with transactional():
        async with atomic(seen.db):
            for name in CONTROLS:
                if name not in nothing_to_end:
                    with pytest.raises(AtomicControlError):
                        await control(name, seen.db)
            assert seen.sent == []
            await write(seen.db, "kept")
    assert await seen.texts() == ["kept"]


async def test_every_end_is_refused_to_a_function_that_is_called(seen: Watched) -> None:
    """Its error dooms the block like any other that a joined call raises and somebody swallows."""
    for name in CONTROLS:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with atomic(seen.db):
                await write(seen.db, "lost")
                with swallowed(AtomicControlError):
                    await transactional(control)(name, seen.db)
        assert caught.value.culprit.endswith("control"), name
    assert await seen.texts() == []


async def test_every_end_is_refused_to_a_hook(seen: Watched) -> None:
    refused: list[str] = []

    async def hook() -> None:
        for name in CONTROLS:
            with swallowed(AtomicControlError):
                await control(name, seen.db)
            refused.append(name)

    async with atomic(seen.db):
        await write(seen.db, "kept")
        before_commit(hook)
    assert refused == CONTROLS
    assert await seen.texts() == ["kept"]


async def test_session_outside_any_context_is_sealed_too(seen: Watched) -> None:
    async with new_non_ctx_atomic_session(seen.db) as session:
        session.add(Note(text="kept"))
        await session.flush()
        before = seen.sent[:]
        for name, end in OF_THE_SESSION.items():
            with pytest.raises(AtomicControlError) as caught:
                await end(session)
            assert caught.value.function == "new_non_ctx_atomic_session()", name
            assert seen.sent == before, name
        session.add(Note(text="kept too"))
    assert await seen.texts() == ["kept", "kept too"]


async def test_refusal_that_leaves_rolls_the_block_back(place: Place) -> None:
    async with transactional():
        with pytest.raises(AtomicControlError, match=r"commit_db_session\(\) was refused"):
            async with atomic(place.db):
                await write(place.db, "lost")
                await commit_db_session(place.db)
        await write(place.db, "kept")
        await commit_db_session(place.db)
    assert await place.texts() == ["kept"]


async def test_innermost_block_is_named(place: Place) -> None:
    @atomic(place.db)
    async def inner() -> None:
        await commit_db_session(place.db)

    async with atomic(place.db):
        with pytest.raises(AtomicControlError) as caught:
            await inner()
    assert caught.value.function.endswith("inner")
    assert caught.value.operation == "commit_db_session()"


async def test_unit_of_its_own_inside_may_end_its_own(place: Place) -> None:
    """Suspended is not sealed: what opens its own context ends that as it likes."""
    if place.judge.url.startswith("sqlite"):
        return  # one writer

    @transactional(propagation="requires_new")
    async def own() -> None:
        await write(place.db, "own")
        await commit_db_session(place.db)

    with pytest.raises(Boom):
        async with atomic(place.db):
            await write(place.db, "lost")
            await own()
            raise Boom
    assert await place.texts() == ["own"]


class TestPastTheSession:
    """Through the session's own objects not all can be refused in time; it is told at the end."""

    async def test_root_transaction_rolled_back_inside_a_block(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError, match="by hand inside the block"):
            async with atomic(place.db) as session:
                await write(place.db, "first half")
                await session.get_transaction().rollback()  # type: ignore[union-attr]
                await write(place.db, "second half")
        assert await place.texts() == []

    async def test_savepoint_released_inside_its_block_is_refused(self, place: Place) -> None:
        async with atomic(place.db) as session:
            await write(place.db, "a")
            with pytest.raises(Boom):
                async with atomic(place.db):
                    await write(place.db, "lost")
                    with pytest.raises(AtomicControlError):
                        await session.get_nested_transaction().commit()  # type: ignore[union-attr]
                    raise Boom
            assert await count(place.db) == 1
        assert await place.texts() == ["a"]

    @pytest.mark.parametrize("kind", ["atomic", "nested"])
    async def test_savepoint_rolled_back_inside_its_block(self, place: Place, kind: str) -> None:
        async with atomic(place.db) as session:
            await write(place.db, "a")
            with pytest.raises(UnexpectedRollbackError, match="by hand inside the block"):
                async with (
                    atomic(place.db) if kind == "atomic" else transactional(propagation="nested")
                ):
                    await write(place.db, "first half")
                    await session.get_nested_transaction().rollback()  # type: ignore[union-attr]
                    with contextlib.suppress(UnexpectedRollbackError):
                        await write(place.db, "second half")
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]

    async def test_savepoint_around_a_block_is_rolled_back_inside_it(self, place: Place) -> None:
        async with atomic(place.db) as session:
            await write(place.db, "a")
            around = await session.begin_nested()
            with pytest.raises(UnexpectedRollbackError):
                async with atomic(place.db):
                    await write(place.db, "first half")
                    await around.rollback()
                    with contextlib.suppress(UnexpectedRollbackError):
                        await write(place.db, "second half")
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]
