"""What is nested inside an atomic block is a savepoint, released when it ends, also after a rollback.

Each statement is read off the wire, on both backends.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.boundary.faces import ask, is_postgres
from tests.boundary.mistakes import statement, swallowed
from tests.conftest import Place
from tests.notes import Boom, write
from tests.wire import Watched, watched
from txkit import (
    Database,
    atomic,
    atomic_db_session,
    db_session,
    set_rollback_only,
    transactional,
)


@pytest.fixture
async def seen(place: Place) -> AsyncIterator[Watched]:
    async for one in watched(place):
        yield one


@transactional
async def culprit() -> None:
    raise Boom


async def normally(db: Database) -> None:
    pass


async def by_exception(db: Database) -> None:
    raise Boom


async def by_request(db: Database) -> None:
    set_rollback_only()


async def by_joined_failure(db: Database) -> None:
    with swallowed(Boom):
        await culprit()


async def by_database_error(db: Database) -> None:
    await statement(await db_session(db))


async def by_swallowed_database_error(db: Database) -> None:
    with swallowed():
        await statement(await db_session(db))


ENDS = [
    normally,
    by_exception,
    by_request,
    by_joined_failure,
    by_database_error,
    by_swallowed_database_error,
]


@contextlib.asynccontextmanager
async def nested(kind: str, db: Database) -> AsyncIterator[None]:
    if kind == "atomic":
        async with atomic(db):
            yield
    elif kind == "seed's":
        async with atomic_db_session(db):
            yield
    elif kind == "savepoint":
        async with atomic(db, current_transaction="savepoint"):
            yield
    elif kind == "bare":
        async with atomic:
            yield
    elif kind == "nested":
        async with transactional(propagation="nested"):
            yield
    else:
        async with (await db_session(db)).begin_nested():
            yield


KINDS = ["atomic", "seed's", "savepoint", "bare", "nested", "begin_nested"]
Ending = Callable[[Database], Awaitable[None]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ENDS)
async def test_is_one_savepoint_that_is_released(seen: Watched, kind: str, end: Ending) -> None:
    if kind == "begin_nested" and end is by_request:
        return  # the request is the block's own, not the savepoint's
    async with atomic(seen.db):
        await write(seen.db, "before")
        seen.sent.clear()
        with contextlib.suppress(Exception):
            async with nested(kind, seen.db):
                await write(seen.db, "inner")
                await end(seen.db)
        verbs = [verb for verb in seen.verbs() if verb != "SELECT"]
        undo = [] if end is normally else ["ROLLBACK TO 1"]
        assert verbs == ["SAVEPOINT 1", "INSERT", *undo, "RELEASE 1"]
        await write(seen.db, "after")
    inner = ["inner"] if end is normally else []
    assert await seen.texts() == ["before", *inner, "after"]


@pytest.mark.parametrize("end", [normally, by_exception])
async def test_three_levels_are_released_inside_out(seen: Watched, end: Ending) -> None:
    async with atomic(seen.db):
        with contextlib.suppress(Boom):
            async with atomic(seen.db), atomic(seen.db), atomic(seen.db):
                await write(seen.db, "inner")
                await end(seen.db)
        await write(seen.db, "after")
    levels = [3, 2, 1]
    if end is normally:
        ends = [f"RELEASE {level}" for level in levels]
    else:
        ends = [verb for level in levels for verb in (f"ROLLBACK TO {level}", f"RELEASE {level}")]
    begins = ["SAVEPOINT 1", "SAVEPOINT 2", "SAVEPOINT 3"]
    assert seen.verbs()[1:-1] == [*begins, "INSERT", *ends, "INSERT"]


async def test_unused_savepoint_leaves_nothing_behind(seen: Watched) -> None:
    async with atomic(seen.db):
        await write(seen.db, "a")
        for _ in range(3):
            async with atomic(seen.db):
                pass
            with pytest.raises(Boom):
                async with atomic(seen.db):
                    raise Boom
        assert open_savepoints(seen) == []
    assert await seen.texts() == ["a"]


@pytest.mark.parametrize("kind", ["atomic", "nested", "begin_nested"])
async def test_thousand_failing_ones_leave_none_behind(seen: Watched, kind: str) -> None:
    """On PostgreSQL each savepoint that stays is a subtransaction more for the server to carry."""
    async with transactional(), atomic(seen.db):
        await write(seen.db, "before")
        for _ in range(1000):
            with pytest.raises(Boom):
                async with nested(kind, seen.db):
                    await write(seen.db, "lost")
                    raise Boom
        assert open_savepoints(seen) == []
        if is_postgres(seen):
            assert await subtransactions(seen.db) == (0, False)
        await write(seen.db, "after")
    assert await seen.texts() == ["before", "after"]


def open_savepoints(seen: Watched) -> list[str]:
    """The savepoints that were set and neither released nor ended with an outer one."""
    open_now: list[str] = []
    for verb in seen.verbs():
        word, _, name = verb.partition(" ")
        if word == "SAVEPOINT":
            open_now.append(name)
        elif word == "RELEASE":
            del open_now[open_now.index(name) :]
    return open_now


async def subtransactions(db: Database) -> tuple[int, bool]:
    """How many the server keeps for this backend, and whether there were too many to list."""
    if await ask(db, "SELECT current_setting('server_version_num')::int < 160000"):
        return 0, False  # can't be asked
    row = await ask(
        db,
        "SELECT s::text FROM pg_stat_get_backend_idset() id,"
        " pg_stat_get_backend_subxact(id) s WHERE pg_stat_get_backend_pid(id) = pg_backend_pid()",
    )
    count, _, overflowed = row.strip("()").partition(",")
    return int(count), overflowed == "t"
