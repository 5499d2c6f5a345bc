"""Telling the truth costs no round trip: what is sent, message by message, on the good path.

A proxy counts the times that the client waits for the server. Beside each unit stands
the same work by hand, on plain SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.conftest import PostgresJudge, opened
from tests.notes import Boom, write
from tests.postgres.roundtrip_cases import CASES, ONE, Case
from tests.wire import Wire, wire_to
from txkit import (
    Database,
    atomic,
)

REPEATS = 5


class Way:
    """A Database and a plain engine behind one proxy."""

    def __init__(self, db: Database, wire: Wire, plain: async_sessionmaker[AsyncSession]) -> None:
        self.db = db
        self.wire = wire
        self.plain = plain

    async def sent_by(self, unit: Callable[[], Awaitable[None]]) -> list[str]:
        """Give what one unit sends on a warm connection, the same each time."""
        await unit()
        runs = []
        for _ in range(REPEATS):
            before, self.wire.round_trips = len(self.wire.sent), 0
            await unit()
            runs.append(self.wire.sent[before:])
            assert self.wire.round_trips == len(runs[-1])
        assert all(run == runs[0] for run in runs)
        return runs[0]


@pytest.fixture
async def way(pg: PostgresJudge) -> AsyncIterator[Way]:
    async with wire_to(pg.url) as wire:
        judge = PostgresJudge(pg.connection, wire.url)
        url = wire.url.replace("postgresql:", "postgresql+asyncpg:")
        engine = create_async_engine(url, connect_args={"ssl": False})
        async for db in opened(judge, name="app", pool_size=1, max_overflow=0):
            yield Way(db, wire, async_sessionmaker(engine))
        await engine.dispose()


@pytest.mark.parametrize("case", CASES, ids=[case.unit.__name__ for case in CASES])
async def test_unit_sends_what_is_sent_by_hand_and_nothing_else(way: Way, case: Case) -> None:
    by_hand = await way.sent_by(lambda: case.by_hand(way.plain))
    sent = await way.sent_by(lambda: case.unit(way.db))
    assert sent == by_hand == case.sent


async def test_savepoint_that_was_not_used_is_never_set(way: Way) -> None:
    """Inside a transaction that has not begun; SQLAlchemy sets one at once where it has."""

    async def unit() -> None:
        async with atomic(way.db):
            async with atomic(way.db):
                pass
            await write(way.db, "a")

    assert await way.sent_by(unit) == list(ONE)


async def test_savepoint_rolled_back_costs_its_release(way: Way) -> None:
    """The one message more than by hand, on the bad path: nothing is left behind."""

    async def unit() -> None:
        async with atomic(way.db):
            await write(way.db, "a")
            with pytest.raises(Boom):
                async with atomic(way.db):
                    await write(way.db, "lost")
                    raise Boom

    begin, insert_, commit = ONE
    name = "sa_savepoint_1"
    undo = [f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}"]
    sent = await way.sent_by(unit)
    assert sent == [begin, insert_, f"SAVEPOINT {name}", insert_, *undo, commit]
