"""Units beside each other: connections of their own, outcomes of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.watching import backend_pid, until_idle
from txkit import (
    Database,
    after_commit,
    after_rollback,
    atomic,
    db_session,
    new_context,
    run_in_new_ctx,
    transactional,
)


def by_decorator(function: Any) -> Any:
    return new_context(function)


def by_requires_new(function: Any) -> Any:
    return transactional(propagation="requires_new")(function)


def by_function(function: Any) -> Any:
    async def unit(*args: Any) -> Any:
        return await run_in_new_ctx(function, *args)

    return unit


def by_block(function: Any) -> Any:
    async def unit(*args: Any) -> Any:
        async with new_context():
            return await function(*args)

    return unit


each_unit = pytest.mark.parametrize(
    "unit", [by_decorator, by_requires_new, by_function, by_block], ids=lambda unit: unit.__name__
)


class Meeting:
    """Units meet here: nobody goes on before all are there, each with its transaction open."""

    def __init__(self, db: Database, number: int) -> None:
        self.db = db
        self.barrier = asyncio.Barrier(number)
        self.pids: list[int] = []

    async def join(self, words: str) -> None:
        await write(self.db, words)
        self.pids.append(await backend_pid(self.db))
        await self.barrier.wait()


@each_unit
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside a boundary"])
async def test_units_gathered_have_a_connection_each(
    db: Database, pg: PostgresJudge, unit: Any, inside: bool
) -> None:
    meeting = Meeting(db, 4)

    async def everybody() -> None:
        await asyncio.gather(*(unit(meeting.join)(f"unit {n}") for n in range(4)))

    await (transactional(everybody)() if inside else everybody())
    assert len(set(meeting.pids)) == 4
    assert sorted(await pg.texts()) == [f"unit {n}" for n in range(4)]


@each_unit
async def test_units_gathered_have_an_outcome_each(
    db: Database, pg: PostgresJudge, unit: Any
) -> None:
    """Scenario: one of them fails once all have written; the caller has written, too."""
    meeting = Meeting(db, 3)

    async def work(words: str) -> str:
        await meeting.join(words)
        if words == "failed":
            raise Boom
        return words

    async with transactional():
        await write(db, "caller")
        done = await asyncio.gather(
            *(unit(work)(words) for words in ("one", "failed", "two")), return_exceptions=True
        )
        assert sorted(await pg.texts()) == ["one", "two"]
    assert [type(one) for one in done] == [str, Boom, str]
    assert sorted(await pg.texts()) == ["caller", "one", "two"]


@each_unit
async def test_caller_may_work_beside_a_unit_of_its_own(
    db: Database, pg: PostgresJudge, unit: Any
) -> None:
    """As the seed's example does: one joins the caller, the others have contexts of their own."""
    meeting = Meeting(db, 3)
    async with transactional():
        with pytest.raises(Boom):
            async with atomic(db):
                await asyncio.gather(
                    meeting.join("caller"),
                    unit(meeting.join)("one"),
                    unit(meeting.join)("two"),
                )
                raise Boom
    assert len(set(meeting.pids)) == 3
    assert sorted(await pg.texts()) == ["one", "two"]


@each_unit
@pytest.mark.parametrize("group", ["asyncio", "anyio"])
async def test_sibling_that_a_group_cancels_is_rolled_back(
    db: Database, pg: PostgresJudge, unit: Any, group: str
) -> None:
    """Scenario: one has committed, one fails, one waits in a statement and one between two."""
    told: list[str] = []
    meeting = Meeting(db, 3)
    is_committed = asyncio.Event()

    async def commits() -> None:
        await write(db, "committed")

    async def first() -> None:
        await unit(commits)()
        is_committed.set()

    async def fails() -> None:
        await meeting.join("never")
        await is_committed.wait()
        while not await pg.fetch("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
        raise Boom

    async def idles() -> None:
        after_commit(lambda: told.append("committed"))
        after_rollback(lambda: told.append("rolled back"))
        await meeting.join("never")
        await asyncio.Event().wait()

    async def works() -> None:
        await meeting.join("never")
        await sleep_in(db)

    works_to_do = [first, unit(fails), unit(idles), unit(works)]
    with pytest.raises(BaseExceptionGroup) as caught:
        if group == "asyncio":
            async with asyncio.TaskGroup() as tasks:
                for work in works_to_do:
                    tasks.create_task(work())
        else:
            async with anyio.create_task_group() as anyio_tasks:
                for work in works_to_do:
                    anyio_tasks.start_soon(work)
    assert [type(error) for error in caught.value.exceptions] == [Boom]
    assert told == ["rolled back"]
    await until_idle(pg)
    assert await pg.texts() == ["committed"]
    assert not await pg.fetch("SELECT FROM pg_locks WHERE relation = 'note'::regclass")


async def sleep_in(db: Database) -> None:
    await (await db_session(db)).execute(text("SELECT pg_sleep(60)"))


async def test_caller_of_a_group_that_failed_can_go_on(db: Database, pg: PostgresJudge) -> None:
    """The group's units are no part of the caller's transaction."""

    async def fails() -> None:
        await write(db, "never")
        raise Boom

    async with transactional():
        await write(db, "before")
        with pytest.raises(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(run_in_new_ctx(write, db, "beside"))
                group.create_task(run_in_new_ctx(fails))
        await write(db, "after")
    assert set(await pg.texts()) - {"beside"} == {"before", "after"}


async def test_caller_that_fails_leaves_its_units_committed(
    db: Database, pg: PostgresJudge
) -> None:
    with pytest.raises(Boom):
        async with transactional():
            await write(db, "never")
            await asyncio.gather(*(run_in_new_ctx(write, db, f"unit {n}") for n in range(3)))
            raise Boom
    assert sorted(await pg.texts()) == ["unit 0", "unit 1", "unit 2"]


async def test_one_decorated_function_runs_many_times_at_once(
    db: Database, pg: PostgresJudge
) -> None:
    """More units than connections: who finds none waits for a unit that ends."""

    @new_context
    async def unit(number: int) -> int:
        await write(db, f"{number:02}")
        if number % 5 == 4:
            raise Boom
        return number

    done = await asyncio.gather(*map(unit, range(40)), return_exceptions=True)
    kept = [number for number in range(40) if number % 5 != 4]
    assert [one for one in done if not isinstance(one, Boom)] == kept
    assert sorted(await pg.texts()) == [f"{number:02}" for number in kept]
