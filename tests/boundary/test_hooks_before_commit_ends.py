"""A before_commit hook is inside what is about to be committed: it may not end that. On both backends."""

from __future__ import annotations

import pytest

from tests.boundary.controls import CONTROLS, control
from tests.boundary.mistakes import swallowed
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from tests.ways import UNITS, Unit, each
from txkit import (
    AtomicControlError,
    after_commit,
    atomic,
    before_commit,
    db_session,
    in_transaction,
    transactional,
)

ENDS = {
    "commit_db_session": "commit_db_session()",
    "rollback_db_session": "rollback_db_session()",
    "close_db_session": "close_db_session()",
    "commit": "session.commit()",
    "rollback": "session.rollback()",
    "close": "session.close()",
}
EVERY_END = pytest.mark.parametrize("end", ENDS)
every_way = each("unit", UNITS)


@every_way
@EVERY_END
async def test_leaving_error_rolls_back(place: Place, unit: Unit, end: str) -> None:
    """The hooks behind it don't run."""
    told: list[str] = []

    async def hook() -> None:
        await write(place.db, "lost too")
        await control(end, place.db)

    with pytest.raises(AtomicControlError) as caught:
        async with unit(place.db):
            await write(place.db, "lost")
            before_commit(hook)
            watch(told, "unit")
    assert caught.value.operation == ENDS[end]
    assert told == rolled_back("unit")
    assert await place.texts() == []


@every_way
@EVERY_END
async def test_swallowed_error_changes_nothing(place: Place, unit: Unit, end: str) -> None:
    """The hook goes on in the same transaction, those behind it too, and all is committed."""
    told: list[str] = []

    async def hook() -> None:
        session = await db_session(place.db)
        with swallowed(AtomicControlError):
            await control(end, place.db)
        assert in_transaction(place.db)
        assert await place.texts() == []
        await write(place.db, "hook")
        assert await db_session(place.db) is session

    async def second() -> None:
        assert in_transaction(place.db)
        await write(place.db, "second")

    async with unit(place.db):
        await write(place.db, "body")
        before_commit(hook)
        before_commit(second)
        watch(told, "unit")
    assert told == committed("unit")
    assert await place.texts() == ["body", "hook", "second"]


OTHERS = [one for one in CONTROLS if one not in {*ENDS, "begin block", "sync begin"}]


@pytest.mark.parametrize("end", OTHERS)
async def test_other_ends_are_refused_too(place: Place, end: str) -> None:
    async def hook() -> None:
        with swallowed(AtomicControlError):
            await control(end, place.db)

    async with transactional():
        await write(place.db, "kept")
        before_commit(hook)
    assert await place.texts() == ["kept"]


@every_way
async def test_end_is_allowed_again_afterwards(place: Place, unit: Unit) -> None:
    async def hook() -> None:
        with swallowed(AtomicControlError):
            await control("commit_db_session", place.db)

    async with transactional():
        async with unit(place.db):
            await write(place.db, "a")
            before_commit(hook)
        await write(place.db, "b")
        await control("commit_db_session", place.db)
        assert (await place.texts())[-1] == "b"
        await write(place.db, "lost")
        await control("rollback_db_session", place.db)


@every_way
@pytest.mark.parametrize("fails", [False, True])
async def test_atomic_block_in_a_hook_is_a_savepoint(place: Place, unit: Unit, fails: bool) -> None:
    told: list[str] = []

    async def hook() -> None:
        with pytest.raises(Boom):
            async with atomic(place.db):
                await write(place.db, "undone")
                raise Boom
        async with atomic(place.db):
            await write(place.db, "block")
            after_commit(lambda: told.append("of the block"))
        assert (told, await place.texts()) == ([], [])
        if fails:
            raise KeyError

    async def run() -> None:
        async with unit(place.db):
            await write(place.db, "body")
            before_commit(hook)

    if fails:
        with pytest.raises(KeyError):
            await run()
    else:
        await run()
    assert told == ([] if fails else ["of the block"])
    assert await place.texts() == ([] if fails else ["body", "block"])
