"""A context that was set aside comes back in every case: same session, same transaction.

Set aside by each of the ways to open another one, ended in each of the ways that
a unit can end, or fail to begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import (
    BOTH_FACES,
    Body,
    Run,
    as_block,
    as_function,
    ask,
    is_postgres,
    where,
)
from tests.conftest import Place, PostgresJudge
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked
from tests.postgres.watching import locked_row, pool_of_one
from tests.server import Server
from txkit import (
    Database,
    PoolStarvationError,
    atomic,
    db_session,
    in_transaction,
    new_context,
    transactional,
)

WAYS: dict[str, Any] = {
    "requires_new": transactional(propagation="requires_new"),
    "not_supported": transactional(propagation="not_supported"),
    "new_context": new_context,
}
SET_ASIDE_BY = pytest.mark.parametrize("way", WAYS)
AROUND: dict[str, Any] = {
    "transactional": transactional,
    "atomic": atomic,
    "nested": transactional(propagation="nested"),
}


@contextlib.asynccontextmanager
async def comes_back(place: Place, around: str) -> AsyncIterator[None]:
    """Stand in a transaction, and look afterwards whether it is the same one, and commits."""
    async with contextlib.AsyncExitStack() as stack:
        if around != "transactional":
            await stack.enter_async_context(transactional())
        await stack.enter_async_context(AROUND[around])
        session = await db_session(place.db)
        before = (session,)
        if is_postgres(place):  # SQLite has one writer
            await write(place.db, "before")
            before = await where(place)
        yield
        assert await db_session(place.db) is session
        await write(place.db, "after")
        assert (await where(place))[: len(before)] == before
        assert in_transaction(place.db)
        assert await place.texts() == []
    expected = ["before", "after"] if is_postgres(place) else ["after"]
    assert await place.texts() == expected


@BOTH_FACES
@SET_ASIDE_BY
@pytest.mark.parametrize("around", AROUND)
async def test_after_a_return(place: Place, run: Run, way: str, around: str) -> None:
    async def body() -> None:
        assert await db_session(place.db) is not caller

    async with comes_back(place, around):
        caller = await db_session(place.db)
        await run(WAYS[way], body)


@BOTH_FACES
@SET_ASIDE_BY
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, asyncio.CancelledError])
async def test_after_an_exception(
    place: Place, run: Run, way: str, around: str, error: type[BaseException]
) -> None:
    async def body() -> None:
        if is_postgres(place) and way != "not_supported":
            await write(place.db, "lost")
        raise error

    async with comes_back(place, around):
        with pytest.raises(error):
            await run(WAYS[way], body)


async def cancelled_once(ready: asyncio.Event, run: Run, unit: Any, body: Body) -> None:
    """Cancel the unit as soon as ``ready``, as a deadline of its caller would, who goes on."""

    async def cancel() -> None:
        await ready.wait()
        task.cancel()

    task = asyncio.current_task()
    assert task is not None
    canceller = asyncio.create_task(cancel())
    with pytest.raises(asyncio.CancelledError):
        await run(unit, body)
    task.uncancel()
    await canceller


@BOTH_FACES
@SET_ASIDE_BY
@pytest.mark.parametrize("around", AROUND)
async def test_after_a_cancellation(place: Place, run: Run, way: str, around: str) -> None:
    ready = asyncio.Event()

    async def body() -> None:
        await db_session(place.db)
        ready.set()
        await asyncio.Event().wait()

    async with comes_back(place, around):
        await cancelled_once(ready, run, WAYS[way], body)


@BOTH_FACES
@SET_ASIDE_BY
async def test_after_a_statement_was_cancelled(
    db: Database, pg: PostgresJudge, run: Run, way: str
) -> None:
    """The inner one waits for a row that a second connection has locked."""
    ready = asyncio.Event()

    async def body() -> None:
        await ask(db, "DELETE FROM note RETURNING id")

    async def seen_waiting() -> None:
        await blocked(pg, "DELETE")
        ready.set()

    async with locked_row(pg):
        async with transactional():
            await write(db, "before")
            session = await db_session(db)
            watcher = asyncio.create_task(seen_waiting())
            await cancelled_once(ready, run, WAYS[way], body)
            await watcher
            assert await db_session(db) is session
            await write(db, "after")
    assert await pg.texts() == ["before", "after", "locked"]


@BOTH_FACES
@SET_ASIDE_BY
async def test_after_a_full_pool_refused(pg: PostgresJudge, run: Run, way: str) -> None:
    """Scenario: a pool of one, which the caller holds.
    Outcome: the other unit gets no connection; the caller's transaction goes on and commits."""
    async with pool_of_one(pg) as db:
        async with transactional():
            await write(db, "before")
            session = await db_session(db)
            with pytest.raises(PoolStarvationError):
                await run(WAYS[way], lambda: write(db, "never"))
            assert await db_session(db) is session
            await write(db, "after")
            assert await pg.texts() == []
    assert await pg.texts() == ["before", "after"]


@BOTH_FACES
@SET_ASIDE_BY
async def test_after_the_server_refused(
    db: Database, pg: PostgresJudge, server: Server, run: Run, way: str
) -> None:
    """The database takes no new connection just now; then it does again."""
    admin = await asyncpg.connect(server.admin_url)
    name = pg.url.rpartition("/")[2]
    async with transactional():
        await write(db, "before")
        session = await db_session(db)
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        with pytest.raises((DBAPIError, asyncpg.PostgresError), match="not currently accepting"):
            await run(WAYS[way], lambda: write(db, "never"))
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert await db_session(db) is session
        if way != "not_supported":
            await run(WAYS[way], lambda: write(db, "other"))
        await write(db, "after")
    await admin.close()
    expected = ["before", "other", "after"] if way != "not_supported" else ["before", "after"]
    assert await pg.texts() == expected


@BOTH_FACES
@SET_ASIDE_BY
async def test_after_a_dead_server(
    db: Database, pg: PostgresJudge, dead_port: int, run: Run, way: str
) -> None:
    """Another Database of the unit answers nothing at all; the caller never used it."""
    dead = Database(f"postgresql://postgres@127.0.0.1:{dead_port}/postgres")
    async with transactional():
        await write(db, "before")
        session = await db_session(db)
        with pytest.raises(OSError):
            await run(WAYS[way], lambda: write(dead, "never"))
        assert await db_session(db) is session
        await write(db, "after")
    await dead.close()
    assert await pg.texts() == ["before", "after"]


@pytest.mark.parametrize("run", [as_function, as_block])
@SET_ASIDE_BY
async def test_after_the_one_writer_was_refused(
    lite: Database, sqlite_judge: Any, run: Run, way: str
) -> None:
    place = Place(lite, sqlite_judge)
    async with transactional():
        await write(lite, "before")
        session = await db_session(lite)
        with pytest.raises(PoolStarvationError):
            await run(WAYS[way], lambda: write(lite, "never"))
        assert await db_session(lite) is session
        await write(lite, "after")
    assert await place.texts() == ["before", "after"]


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is ours, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
