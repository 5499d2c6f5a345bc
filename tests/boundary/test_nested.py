"""``nested``: a savepoint on what is open, judged by its own rules. On both backends."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, count, write
from txkit import (
    UnexpectedRollbackError,
    commit_db_session,
    db_session,
    in_transaction,
    set_rollback_only,
    transactional,
)

NESTED = transactional(propagation="nested")
OPEN_BEFORE = pytest.mark.parametrize("opened", [True, False], ids=["opened before", "inside"])


async def begin(place: Place, opened: bool) -> list[str]:
    if opened:
        await write(place.db, "before")
        return ["before"]
    return []


@BOTH_FACES
@OPEN_BEFORE
async def test_failure_loses_only_its_own(place: Place, run: Run, opened: bool) -> None:
    async def body() -> None:
        await write(place.db, "lost")
        (await db_session(place.db)).add(Note(text="lost too"))
        raise Boom

    async with transactional():
        kept = await begin(place, opened)
        with pytest.raises(Boom) as caught:
            await run(NESTED, body)
        assert not hasattr(caught.value, "__notes__")
        assert in_transaction(place.db) is opened
        assert await count(place.db) == len(kept)
        await write(place.db, "after")
    assert await place.texts() == [*kept, "after"]


@BOTH_FACES
@OPEN_BEFORE
@pytest.mark.parametrize("fails", [False, True])
async def test_success_is_left_to_the_boundary(
    place: Place, run: Run, opened: bool, fails: bool
) -> None:
    """Nothing is committed at its end, and its boundary may still lose it."""

    async def body() -> str:
        await write(place.db, "a")
        (await db_session(place.db)).add(Note(text="b"))
        return "result"

    async def unit() -> None:
        assert await run(NESTED, body) == "result"
        assert in_transaction(place.db)
        assert await place.texts() == []
        if fails:
            raise Boom

    if fails:
        with pytest.raises(Boom):
            async with transactional():
                await begin(place, opened)
                await unit()
        assert await place.texts() == []
    else:
        async with transactional():
            kept = await begin(place, opened)
            await unit()
        assert await place.texts() == [*kept, "a", "b"]


async def test_pending_changes_of_its_caller_are_not_its_own(place: Place) -> None:
    async with transactional():
        (await db_session(place.db)).add(Note(text="pending before"))
        with pytest.raises(Boom):
            async with NESTED:
                await write(place.db, "lost")
                raise Boom
    assert await place.texts() == ["pending before"]


@BOTH_FACES
@OPEN_BEFORE
@pytest.mark.parametrize("cause", ["joined failure", "database error"])
async def test_swallowed_failure_inside_loses_it_and_no_more(
    place: Place, run: Run, opened: bool, cause: str
) -> None:
    """Its end raises from the failure that was swallowed; its caller's transaction is unharmed."""

    @transactional
    async def culprit() -> None:
        if cause == "joined failure":
            raise Boom
        await ask(place.db, "INSERT INTO note (text) VALUES (NULL)")

    async def body() -> None:
        await write(place.db, "lost")
        with pytest.raises((Boom, IntegrityError)) as swallowed:
            await culprit()
        errors.append(swallowed.value)
        with pytest.raises(UnexpectedRollbackError):
            await write(place.db, "refused")

    errors: list[BaseException] = []
    async with transactional():
        kept = await begin(place, opened)
        with pytest.raises(UnexpectedRollbackError) as caught:
            await run(transactional(propagation="nested", name="import_day"), body)
        assert caught.value.__cause__ is errors[0]
        assert caught.value.function == "import_day"
        assert caught.value.culprit.endswith("culprit")
        await write(place.db, "after")
    assert await place.texts() == [*kept, "after"]


@BOTH_FACES
@OPEN_BEFORE
async def test_own_request_loses_its_work_and_returns_normally(
    place: Place, run: Run, opened: bool
) -> None:
    async def body() -> str:
        set_rollback_only("dry run")
        await write(place.db, "lost")
        return "result"

    async with transactional():
        kept = await begin(place, opened)
        assert await run(NESTED, body) == "result"
        await write(place.db, "after")
    assert await place.texts() == [*kept, "after"]


@OPEN_BEFORE
async def test_request_of_a_joined_function_is_unexpected(place: Place, opened: bool) -> None:
    @transactional
    async def asks() -> None:
        set_rollback_only("no stock")

    async with transactional():
        kept = await begin(place, opened)
        with pytest.raises(UnexpectedRollbackError, match="no stock"):
            async with NESTED:
                await write(place.db, "lost")
                await asks()
        await write(place.db, "after")
    assert await place.texts() == [*kept, "after"]


@OPEN_BEFORE
async def test_early_commit_after_it_makes_it_durable(place: Place, opened: bool) -> None:
    """What was opened inside is the boundary's own afterwards."""
    async with transactional():
        kept = await begin(place, opened)
        async with NESTED:
            await write(place.db, "a")
        await commit_db_session(place.db)
        assert await place.texts() == [*kept, "a"]


@BOTH_FACES
@OPEN_BEFORE
async def test_cancellation_between_statements_loses_only_its_own(
    place: Place, run: Run, opened: bool
) -> None:
    """Its caller takes the cancellation back, as a deadline of his own would, and commits."""

    async def body() -> None:
        await write(place.db, "lost")
        task.cancel()
        await asyncio.Event().wait()

    task = asyncio.current_task()
    assert task is not None
    async with transactional():
        kept = await begin(place, opened)
        with pytest.raises(asyncio.CancelledError):
            await run(NESTED, body)
        task.uncancel()
        await write(place.db, "after")
    assert await place.texts() == [*kept, "after"]
