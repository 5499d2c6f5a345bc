"""What is compared: every case does the same work twice, through txkit and by hand.

Both sides have an engine of their own with the same options, sessions with
``expire_on_commit=False``, the same statement objects and parameters, and one
coroutine function around the unit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from tests.notes import Boom, note
from txkit import Database, atomic, db_session, transactional

OPTIONS: dict[str, Any] = {"pool_size": 10, "max_overflow": 0, "pool_timeout": 120}
SCHEMA = "CREATE TABLE note (id SERIAL PRIMARY KEY, text VARCHAR(200) NOT NULL)"

INSERT = note.insert()
SELECT = select(note.c.text).where(note.c.id == 1)
VALUES = {"text": "a note of some length"}

Unit = Callable[[], Awaitable[object]]


class Case(NamedTuple):
    """``work`` done by txkit and by hand, ``units`` of it in a batch."""

    work: str
    txkit: Unit
    by_hand: Unit
    aim: float | None = None
    units: int = 20


class Subjects:
    """Both sides, on one PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self.db = Database(url, **OPTIONS)
        self.engine: AsyncEngine = create_async_engine(driver_url(url), **OPTIONS)
        self.twin: AsyncEngine = create_async_engine(driver_url(url), **OPTIONS)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.twin_sessions = async_sessionmaker(self.twin, expire_on_commit=False)

    async def close(self) -> None:
        await self.db.close()
        await self.engine.dispose()
        await self.twin.dispose()


def driver_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


async def insert(session: AsyncSession) -> None:
    await session.execute(INSERT, VALUES)


async def read(session: AsyncSession) -> object:
    return (await session.execute(SELECT)).scalar_one_or_none()


async def insert_and_fail(session: AsyncSession) -> None:
    await session.execute(INSERT, VALUES)
    raise Boom


def by_hand(
    sessions: async_sessionmaker[AsyncSession], work: Callable[[AsyncSession], Awaitable[object]]
) -> Unit:
    """One transaction as SQLAlchemy's documentation writes it."""

    async def unit() -> None:
        async with sessions.begin() as session:
            await work(session)

    return unit


def swallowing(unit: Unit) -> Unit:
    async def caller() -> None:
        with contextlib.suppress(Boom):
            await unit()

    return caller


def by_txkit(db: Database, work: Callable[[AsyncSession], Awaitable[object]]) -> Unit:
    @transactional
    async def unit() -> None:
        await work(await db_session(db))

    return unit


def cases(s: Subjects) -> list[Case]:
    """Every row of the table of ratios."""
    db, sessions = s.db, s.sessions

    @transactional
    async def unused() -> None:
        pass

    async def block() -> None:
        async with transactional():
            await insert(await db_session(db))

    @atomic(db)
    async def atomic_unit() -> None:
        await insert(await db_session(db))

    async def atomic_block() -> None:
        async with atomic(db) as session:
            await insert(session)

    @transactional(propagation="requires_new")
    async def inner() -> None:
        await insert(await db_session(db))

    @transactional
    async def requires_new() -> None:
        await inner()

    @transactional
    async def savepoint() -> None:
        async with atomic(db) as session:
            await insert(session)
            async with atomic(db):
                await insert(session)

    async def savepoint_by_hand() -> None:
        async with sessions.begin() as session:
            await insert(session)
            async with session.begin_nested():
                await insert(session)

    one = by_hand(sessions, insert)
    failing = swallowing(by_txkit(db, insert_and_fail))
    failing_by_hand = swallowing(by_hand(sessions, insert_and_fail))
    return [
        Case("`@transactional`, one INSERT", by_txkit(db, insert), one, 1.0),
        Case("`@transactional`, one SELECT", by_txkit(db, read), by_hand(sessions, read), 1.0),
        Case("`@transactional`, never uses the database", unused, one, 0.05),
        Case("`async with transactional()`, one INSERT", block, one, 1.0),
        Case("`@atomic(db)`, one INSERT", atomic_unit, one, 1.0),
        Case("`async with atomic(db)`, one INSERT", atomic_block, one, 1.0),
        Case("`requires_new` in an unused boundary, one INSERT", requires_new, one, 1.0),
        Case("INSERT, then a failure: rolled back", failing, failing_by_hand, 1.0),
        Case("INSERT, and one more in a savepoint", savepoint, savepoint_by_hand),
        Case("noise: by hand, twice", by_hand(s.twin_sessions, insert), one),
    ]


class Calls(NamedTuple):
    """A call that joins and the plain one, each made ``count`` times in an open boundary."""

    work: str
    joined: Callable[[int], Awaitable[None]]
    plain: Callable[[int], Awaitable[None]]


async def _service() -> None:
    pass


class _Services:
    async def method(self) -> None:
        pass

    @transactional
    async def decorated(self) -> None:
        pass


def joined_calls() -> list[Calls]:
    """Every row of the table of microseconds."""
    services = _Services()
    joined = _many(lambda: services.decorated())  # noqa: PLW0108 - binding is a part of the call
    plain = _many(lambda: services.method())  # noqa: PLW0108
    return [
        Calls("joined function", _many(transactional(_service)), _many(_service)),
        Calls("joined method", joined, plain),
    ]


def _many(call: Unit) -> Callable[[int], Awaitable[None]]:
    @transactional
    async def boundary(count: int) -> None:
        for _ in range(count):
            await call()

    return boundary
