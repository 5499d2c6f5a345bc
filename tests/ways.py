"""Every way to end a transaction of the context by hand, for tests that must hold for all.

``COMMITS`` and ``ROLLBACKS`` end what is open on a Database. ``UNITS`` are
blocks: what is done inside is committed when they are left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.notes import count
from txkit import (
    Database,
    atomic,
    atomic_db_session,
    close_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    transactional,
)

End = Callable[[Database], Awaitable[object]]
Unit = Callable[[Database], AbstractAsyncContextManager[object]]


async def session_commit(db: Database) -> None:
    await (await db_session(db)).commit()


async def sync_commit(db: Database) -> None:
    await (await db_session(db)).run_sync(lambda session: session.commit())


async def transaction_commit(db: Database) -> None:
    transaction = (await db_session(db)).get_transaction()
    assert transaction is not None
    await transaction.commit()


async def commit_first(db: Database) -> None:
    async with atomic(db, current_transaction="commit"):
        pass


async def seeds_block(db: Database) -> None:
    async with atomic_db_session(db):
        pass


async def append_nothing(db: Database) -> None:
    async with atomic(db, current_transaction="append"):
        pass


async def session_rollback(db: Database) -> None:
    await (await db_session(db)).rollback()


async def session_close(db: Database) -> None:
    await (await db_session(db)).close()


async def session_reset(db: Database) -> None:
    await (await db_session(db)).reset()


async def session_invalidate(db: Database) -> None:
    await (await db_session(db)).invalidate()


async def transaction_rollback(db: Database) -> None:
    transaction = (await db_session(db)).get_transaction()
    assert transaction is not None
    await transaction.rollback()


async def rollback_first(db: Database) -> None:
    async with atomic(db, current_transaction="rollback"):
        pass


COMMITS: list[End] = [
    commit_db_session,
    session_commit,
    sync_commit,
    transaction_commit,
    commit_first,
    seeds_block,
]
ROLLBACKS: list[End] = [
    rollback_db_session,
    close_db_session,
    session_rollback,
    session_close,
    session_reset,
    session_invalidate,
    transaction_rollback,
    rollback_first,
]


@asynccontextmanager
async def boundary(db: Database) -> AsyncIterator[None]:
    async with transactional():
        yield


@asynccontextmanager
async def block_alone(db: Database) -> AsyncIterator[None]:
    async with atomic(db):
        yield


@asynccontextmanager
async def block_inside(db: Database) -> AsyncIterator[None]:
    async with transactional(), atomic(db):
        yield


@asynccontextmanager
async def append(db: Database) -> AsyncIterator[None]:
    async with transactional():
        await count(db)
        async with atomic(db, current_transaction="append"):
            yield


@asynccontextmanager
async def by_function(db: Database) -> AsyncIterator[None]:
    async with transactional():
        yield
        await commit_db_session(db)


@asynccontextmanager
async def by_session(db: Database) -> AsyncIterator[None]:
    async with transactional():
        yield
        await session_commit(db)


@asynccontextmanager
async def by_session_begin(db: Database) -> AsyncIterator[None]:
    async with transactional():
        async with (await db_session(db)).begin():
            yield


@asynccontextmanager
async def by_commit_first(db: Database) -> AsyncIterator[None]:
    async with transactional():
        yield
        await commit_first(db)


WHOLE: list[Unit] = [boundary, block_alone, block_inside, append]
BY_HAND: list[Unit] = [by_function, by_session, by_session_begin, by_commit_first]
UNITS = [*WHOLE, *BY_HAND]


def each(name: str, ways: list[Unit] | list[End]) -> pytest.MarkDecorator:
    """Run a test with each of these ways."""
    return pytest.mark.parametrize(name, ways, ids=lambda way: way.__name__)
