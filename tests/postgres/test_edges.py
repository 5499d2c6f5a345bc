"""A transaction that can't begin: its error leaves, nothing is left, and the next one begins.

The server is down or refuses, or the pool is exhausted. Always on a pool of one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.notes import write
from tests.postgres.edges import EVERY_UNIT, Edge, Unit, edge_of
from tests.server import Server
from tests.told import committed, rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    atomic,
    commit_db_session,
    db_session,
    in_transaction,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    transactional,
)

Trouble: TypeAlias = Callable[[Edge], AbstractAsyncContextManager[Any]]


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server, pool_timeout=0.1):
        yield one


@contextlib.asynccontextmanager
async def server_down(edge: Edge) -> AsyncIterator[type[Exception]]:
    edge.wire.close()
    yield ConnectionRefusedError
    await edge.wire.open()


@contextlib.asynccontextmanager
async def server_refuses(edge: Edge) -> AsyncIterator[tuple[type[Exception], ...]]:
    async def allow(whether: bool) -> None:
        url, _, name = edge.judge.url.rpartition("/")
        admin = await asyncpg.connect(f"{url}/postgres")
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {whether}')
        await admin.close()

    await allow(False)
    yield DBAPIError, asyncpg.PostgresError  # before SQLAlchemy 2.1 it leaves as it is
    await allow(True)


@contextlib.asynccontextmanager
async def pool_exhausted(edge: Edge) -> AsyncIterator[type[Exception]]:
    async with (await edge.db.engine()).connect():
        yield PoolTimeoutError


TROUBLES: list[Trouble] = [server_down, server_refuses, pool_exhausted]


EVERY_TROUBLE = pytest.mark.parametrize("trouble", TROUBLES)


@EVERY_TROUBLE
class TestNoConnection:
    @EVERY_UNIT
    async def test_error_leaves_and_the_next_unit_works(
        self, edge: Edge, trouble: Trouble, unit: Unit
    ) -> None:
        async def body() -> None:
            watch(edge.told, "unit")
            await write(edge.db, "lost")

        async with trouble(edge) as kind:
            with pytest.raises(kind) as caught:
                await unit(edge.db, body)
            assert not getattr(caught.value, "__notes__", [])
            assert edge.told == rolled_back("unit")
        await edge.works()

    async def test_flush_at_the_end_raises_it(self, edge: Edge, trouble: Trouble) -> None:
        async with trouble(edge) as kind:
            with pytest.raises(kind):
                async with transactional():
                    watch(edge.told, "unit")
                    (await db_session(edge.db)).add(Note(text="lost"))
            assert edge.told[-2:] == rolled_back("unit")
        await edge.works()

    @pytest.mark.parametrize("block", [new_non_ctx_session, new_non_ctx_atomic_session])
    async def test_session_outside_any_context_raises_it(
        self, edge: Edge, trouble: Trouble, block: Callable
    ) -> None:
        async with trouble(edge) as kind:
            with pytest.raises(kind):
                async with block(edge.db) as session:
                    await session.connection()
        await edge.works()

    async def test_swallowed_dooms_nothing_since_nothing_began(
        self, edge: Edge, trouble: Trouble
    ) -> None:
        """The same unit goes on when the trouble is over, and commits."""
        async with transactional():
            async with trouble(edge) as kind:
                with pytest.raises(kind):
                    await write(edge.db, "not written")
            watch(edge.told, "unit")
            await write(edge.db, "kept")
        assert edge.told == committed("unit")
        await edge.works("kept")

    async def test_swallowed_in_a_block_and_a_savepoint(self, edge: Edge, trouble: Trouble) -> None:
        async with atomic(edge.db), atomic(edge.db):
            async with trouble(edge) as kind:
                with pytest.raises(kind):
                    await write(edge.db, "not written")
            await write(edge.db, "kept")
        await edge.works("kept")

    async def test_swallowed_and_nothing_else_counts_as_committed(
        self, edge: Edge, trouble: Trouble
    ) -> None:
        """A unit that used no transaction has nothing to lose."""
        async with trouble(edge) as kind:
            async with transactional():
                watch(edge.told, "unit")
                with pytest.raises(kind):
                    await write(edge.db, "not written")
            assert edge.told == committed("unit")
        await edge.works()

    async def test_joined_call_that_it_left_dooms_all_the_same(
        self, edge: Edge, trouble: Trouble
    ) -> None:
        async with trouble(edge) as kind:
            with pytest.raises(UnexpectedRollbackError) as caught:
                async with transactional():
                    with swallowed(kind) as first:
                        await transactional(write)(edge.db, "lost")
            assert caught.value.__cause__ is first.error
        await edge.works()

    async def test_after_an_early_commit(self, edge: Edge, trouble: Trouble) -> None:
        """The first transaction stays; the second one can't begin."""
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises((OSError, DBAPIError, asyncpg.PostgresError, PoolTimeoutError)):
                async with transactional():
                    await edge.write_and_watch("kept")
                    await commit_db_session(edge.db)
                    assert edge.told == committed("unit")
                    await (await edge.db.engine()).dispose()
                    kind = await stack.enter_async_context(trouble(edge))
                    assert not in_transaction()
                    with swallowed(kind) as first:
                        await write(edge.db, "lost")
                    raise first.error
        await edge.works("kept")
