"""The ways in which a statement fails at the database, and the catching of what is raised.

``SENT`` fail on both backends and are made through SQLAlchemy, which sees them. ``RAW``
are made on PostgreSQL's driver connection, past SQLAlchemy. So is the one of a stream
that fails while its rows are fetched, on PostgreSQL alone. ``UNSENT`` never reach the
database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tests.boundary.test_atomic import Note
from tests.notes import note

Mistake: TypeAlias = Callable[[AsyncSession], Awaitable[object]]

MISSING = "SELECT * FROM missing"
# Rows come for a while, then one fails; it is the driver's fetch that raises.
_LATE = (
    "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)"
    " SELECT abs(CASE WHEN n = 2000 THEN -9223372036854775807 - 1 ELSE n END) FROM n"
)


async def statement(session: AsyncSession) -> None:
    await session.execute(text(MISSING))


async def executemany(session: AsyncSession) -> None:
    await session.execute(insert(note), [{"text": "one"}, {"text": None}])


async def stream(session: AsyncSession) -> None:
    async for _ in await session.stream(text(_LATE)):
        pass


async def orm_flush(session: AsyncSession) -> None:
    session.add(Note(text=None))  # type: ignore[arg-type]
    await session.flush()


async def autoflush(session: AsyncSession) -> None:
    session.add(Note(text=None))  # type: ignore[arg-type]
    await session.execute(select(Note.id))


async def bulk(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.bulk_insert_mappings(Note, [{"text": None}]))  # type: ignore[arg-type]


async def core(session: AsyncSession) -> None:
    await (await session.connection()).execute(text(MISSING))


async def core_through_run_sync(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.connection().exec_driver_sql(MISSING))


SENT: dict[str, Mistake] = {
    one.__name__: one
    for one in (
        statement,
        executemany,
        orm_flush,
        autoflush,
        bulk,
        core,
        core_through_run_sync,
    )
}
ANY: dict[str, Mistake] = {**SENT, "stream": stream}


async def driver(session: AsyncSession) -> Any:
    """Give the driver's own connection."""
    raw = await (await session.connection()).get_raw_connection()
    return raw.driver_connection


async def raw_execute(session: AsyncSession) -> None:
    await (await driver(session)).execute(MISSING)


async def raw_fetch(session: AsyncSession) -> None:
    await (await driver(session)).fetch("SELECT text FROM note WHERE id / 0 = $1", 1)


async def raw_executemany(session: AsyncSession) -> None:
    await (await driver(session)).executemany(
        "INSERT INTO note (text) VALUES ($1)", [("a",), (None,)]
    )


async def dbapi_cursor(session: AsyncSession) -> None:
    def fail(sync: Any) -> None:
        sync.connection().connection.cursor().execute(MISSING)

    await session.run_sync(fail)


async def run_async(session: AsyncSession) -> None:
    def fail(sync: Any) -> None:
        connection = sync.connection().connection.dbapi_connection
        connection.run_async(lambda driver: driver.execute(MISSING))

    await session.run_sync(fail)


RAW: dict[str, Mistake] = {
    one.__name__: one for one in (raw_execute, raw_fetch, raw_executemany, dbapi_cursor, run_async)
}


async def missing_parameter(session: AsyncSession) -> None:
    await session.execute(text("SELECT :never_given"))


async def no_row(session: AsyncSession) -> None:
    (await session.execute(text("SELECT 1 WHERE 1 = 0"))).scalar_one()


async def unmapped(session: AsyncSession) -> None:
    session.add(object())


async def no_sql(session: AsyncSession) -> None:
    await session.execute("SELECT 1")  # type: ignore[call-overload]


UNSENT: dict[str, Mistake] = {
    one.__name__: one for one in (missing_parameter, no_row, unmapped, no_sql)
}


async def wrong_type(session: AsyncSession) -> None:
    """asyncpg refuses by itself: an int is no text."""
    await session.execute(insert(note).values(text=5))


async def raw_wrong_type(session: AsyncSession) -> None:
    await (await driver(session)).fetch("SELECT text FROM note WHERE id = $1", "five")


async def wrong_number(session: AsyncSession) -> None:
    """asyncpg counts the arguments by itself."""
    await (await session.connection()).exec_driver_sql("SELECT $1::text", ("one", "two"))


UNSENT_BY_ASYNCPG: dict[str, Mistake] = {
    one.__name__: one for one in (wrong_type, raw_wrong_type, wrong_number)
}


class Swallowed:
    """What was raised, and swallowed."""

    error: BaseException


@contextmanager
def swallowed(kind: Any = Exception) -> Iterator[Swallowed]:
    """Swallow what the block raises, which must raise; a class, or a tuple."""
    kept = Swallowed()
    with pytest.raises(kind) as caught:
        yield kept
    kept.error = caught.value


def connection_of(session: AsyncSession) -> Awaitable[AsyncConnection]:
    return session.connection()
