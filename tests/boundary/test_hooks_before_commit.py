"""before_commit: inside the transaction, to a fixpoint, each round flushed. On both backends.

With every way to commit. What a hook may fail is in ``test_hooks_before_commit_fails``.
"""

from __future__ import annotations

import pytest
from sqlalchemy import event, select

from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import write
from tests.ways import UNITS, Unit, block_inside, boundary, by_session, each
from txkit import (
    after_commit,
    after_rollback,
    before_commit,
    db_session,
    in_transaction,
)

every_way = each("unit", UNITS)


@every_way
async def test_work_of_a_hook_is_committed_with_the_unit(place: Place, unit: Unit) -> None:
    seen: list[object] = []

    async def hook() -> None:
        seen.append(await place.texts())
        seen.append(in_transaction(place.db))
        await write(place.db, "hook")

    async with unit(place.db):
        before_commit(hook)
        await write(place.db, "body")
    assert seen == [[], True]
    assert await place.texts() == ["body", "hook"]


@every_way
async def test_hook_of_a_hook_sees_what_was_added_and_runs_in_the_next_round(
    place: Place, unit: Unit
) -> None:
    """Each round is flushed, without the help of autoflush."""
    rounds: list[list[str]] = []

    async def seen() -> list[str]:
        session = await db_session(place.db)
        with session.no_autoflush:
            return list((await session.execute(select(Note.text).order_by(Note.id))).scalars())

    async def third() -> None:
        rounds.append(await seen())

    async def second() -> None:
        rounds.append(await seen())
        (await db_session(place.db)).add(Note(text="second"))
        before_commit(third)

    async def first() -> None:
        rounds.append(await seen())
        (await db_session(place.db)).add(Note(text="first"))
        before_commit(second)

    async with unit(place.db):
        await write(place.db, "body")
        before_commit(first)
        before_commit(lambda: rounds.append([]))
    assert rounds == [["body"], [], ["body", "first"], ["body", "first", "second"]]
    assert await place.texts() == ["body", "first", "second"]


@each("unit", [boundary, block_inside, by_session])
@pytest.mark.parametrize("rounds", [99, 100])
async def test_a_hundred_rounds_are_an_error_and_roll_back(
    place: Place, unit: Unit, rounds: int
) -> None:
    ran: list[int] = []
    told: list[str] = []

    def again() -> None:
        ran.append(1)
        if len(ran) < rounds:
            before_commit(again)

    async def run() -> None:
        async with unit(place.db):
            await write(place.db, "body")
            before_commit(again)
            after_rollback(lambda: told.append("rollback"))
            after_commit(lambda: told.append("commit"))

    if rounds == 100:
        with pytest.raises(RuntimeError, match="100 times"):
            await run()
    else:
        await run()
    assert len(ran) == rounds
    assert told == (["rollback"] if rounds == 100 else ["commit"])
    assert await place.texts() == ([] if rounds == 100 else ["body"])


@every_way
async def test_after_hooks_of_a_hook_run_too(place: Place, unit: Unit) -> None:
    told: list[str] = []

    def hook() -> None:
        after_commit(lambda: told.append("of the hook"))

    async with unit(place.db):
        await write(place.db, "body")
        before_commit(hook)
        after_commit(lambda: told.append("of the body"))
    assert told == ["of the body", "of the hook"]


@every_way
async def test_hook_registered_by_the_flush_runs_before_the_commit(
    place: Place, unit: Unit
) -> None:
    """Scenario: an ORM event registers a hook when objects are flushed, which only the end
    of the unit does. Outcome: it runs, and its work is committed."""
    told: list[str] = []

    async def hook() -> None:
        await write(place.db, "outbox")

    def flushed(*_: object) -> None:
        if not told:
            told.append("flushed")
            before_commit(hook)
            after_commit(lambda: told.append("committed"))

    async with unit(place.db):
        session = await db_session(place.db)
        event.listen(session.sync_session, "after_flush", flushed)
        session.add(Note(text="body"))
    assert told == ["flushed", "committed"]
    assert await place.texts() == ["body", "outbox"]
