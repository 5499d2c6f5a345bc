"""What the tests of failures at the edges share: a pool of one, a wire that can break, the judge.

After each failure the same is asked: which error left, which rows are there, which
hooks ran, and whether the one connection was given back or discarded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import as_block, as_function
from tests.conftest import PostgresJudge, new_postgres, opened
from tests.notes import write
from tests.postgres.watching import kill_seen
from tests.server import Server
from tests.told import watch
from tests.wire import Wire, wire_to
from txkit import Database, atomic, new_context, transactional

LOST = (DBAPIError, asyncpg.InternalClientError)
"""What who meets a connection that is lost sees. The second is the driver's word in the moment
between the server's last message and the end of the connection; SQLAlchemy passes it on."""

Body: TypeAlias = Callable[[], Awaitable[Any]]
Unit: TypeAlias = Callable[[Database, Body], Awaitable[Any]]


class Edge:
    """A Database on a pool of one, the way to its server, the judge, and what hooks told."""

    def __init__(self, db: Database, judge: PostgresJudge, wire: Wire) -> None:
        self.db = db
        self.judge = judge
        self.wire = wire
        self.told: list[str] = []

    async def backends(self) -> list[int]:
        """Give the server's processes for this Database."""
        return [pid for pid, _ in await self.judge.backends()]

    async def backend(self) -> int:
        """Give the one process."""
        [pid] = await self.backends()
        return pid

    async def kill(self) -> None:
        """End the process, and wait until it is gone."""
        await self.judge.fetch("SELECT pg_terminate_backend($1, 5000)", await self.backend())

    async def kill_seen(self) -> None:
        """End the process, and wait until the driver knows."""
        await kill_seen(self.db, self.judge)

    async def write_and_watch(self, text: str = "lost") -> None:
        """Do something, and register hooks."""
        await write(self.db, text)
        watch(self.told, "unit")

    async def works(self, *before: str, same: int | None = None, other: int | None = None) -> None:
        """Whether nothing is checked out, and the next unit works on the one connection.

        ``same`` is the process that must be at work again, ``other`` one that must be gone.
        """
        assert (await self.db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        assert await self.judge.texts() == list(before)
        await transactional(write)(self.db, "next")
        assert await self.judge.texts() == [*before, "next"]
        pid = await self.backend()
        assert same is None or pid == same
        assert pid != other


async def edge_of(server: Server, **options: Any) -> AsyncIterator[Edge]:
    """Make a database, a wire to it, and a Database on a pool of one."""
    async for judge in new_postgres(server):
        async with wire_to(judge.url) as wire:
            way = PostgresJudge(judge.connection, wire.url)
            options = {"name": "app", "pool_size": 1, "max_overflow": 0, **options}
            async for db in opened(way, **options):
                yield Edge(db, judge, wire)


async def joined(_: Database, body: Body) -> None:
    async with transactional(), transactional():
        await body()


async def atomic_alone(db: Database, body: Body) -> None:
    await as_function(atomic(db), body)


async def atomic_block(db: Database, body: Body) -> None:
    await as_block(atomic(db), body)


async def atomic_inside(db: Database, body: Body) -> None:
    async with transactional(), atomic(db):
        await body()


async def nested(_: Database, body: Body) -> None:
    async with transactional(), transactional(propagation="nested"):
        await body()


async def function(_: Database, body: Body) -> None:
    await as_function(transactional(name="unit"), body)


async def block(_: Database, body: Body) -> None:
    await as_block(transactional(name="unit"), body)


async def own_context(_: Database, body: Body) -> None:
    await as_function(new_context(name="unit"), body)


UNITS: list[Unit] = [
    function,
    block,
    own_context,
    joined,
    atomic_alone,
    atomic_block,
    atomic_inside,
    nested,
]
EVERY_UNIT = pytest.mark.parametrize("unit", UNITS)
