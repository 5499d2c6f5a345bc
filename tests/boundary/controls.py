"""Every kind of sealed block, and every way to end a transaction from inside one.

By the session's methods, or by the context's functions and blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tests.notes import write
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


async def begin(session: AsyncSession) -> None:
    await session.begin()


async def begin_block(session: AsyncSession) -> None:
    async with session.begin():
        raise AssertionError


async def session_block(session: AsyncSession) -> None:
    """``async with session`` closes it at the end."""
    async with session:
        pass


async def begin_through_run_sync(session: AsyncSession) -> None:
    def begin(sync: Any) -> None:
        with sync.begin():
            raise AssertionError

    await session.run_sync(begin)


async def commit_of_the_root(session: AsyncSession) -> None:
    await session.get_transaction().commit()  # type: ignore[union-attr]


OF_THE_SESSION: dict[str, Callable[[AsyncSession], Awaitable[Any]]] = {
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
    "close": lambda session: session.close(),
    "aclose": lambda session: session.aclose(),
    "reset": lambda session: session.reset(),
    "invalidate": lambda session: session.invalidate(),
    "begin": begin,
    "begin block": begin_block,
    "session block": session_block,
    "sync commit": lambda session: session.run_sync(lambda sync: sync.commit()),
    "sync rollback": lambda session: session.run_sync(lambda sync: sync.rollback()),
    "sync close": lambda session: session.run_sync(lambda sync: sync.close()),
    "sync begin": begin_through_run_sync,
    "sync prepare": lambda session: session.run_sync(lambda sync: sync.prepare()),
    "root commit": commit_of_the_root,
}


def enter(make: Callable[[Database], Any]) -> Callable[[Database], Awaitable[None]]:
    async def entered(db: Database) -> None:
        async with make(db):
            raise AssertionError

    return entered


OF_THE_CONTEXT: dict[str, Callable[[Database], Awaitable[None]]] = {
    "commit_db_session": commit_db_session,
    "rollback_db_session": rollback_db_session,
    "close_db_session": close_db_session,
    **{
        f"{name} {mode}": enter(partial(make, current_transaction=mode))
        for name, make in (("atomic", atomic), ("atomic_db_session", atomic_db_session))
        for mode in ("commit", "rollback", "append", "raise")
    },
    "bare atomic": enter(lambda _: atomic(current_transaction="append")),
}


CONTROLS = [*OF_THE_SESSION, *OF_THE_CONTEXT]


async def control(name: str, db: Database) -> None:
    """End the transaction, or try to."""
    if name in OF_THE_SESSION:
        await OF_THE_SESSION[name](await db_session(db))
    else:
        await OF_THE_CONTEXT[name](db)


@contextlib.asynccontextmanager
async def block(kind: str, db: Database) -> AsyncIterator[None]:
    """Every kind of block that is sealed."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if kind == "inside a boundary":
            await enter(transactional())
        if kind in {"nested", "bare nested"}:
            await enter(transactional())
            if kind == "nested":
                await write(db, "before")
            await enter(transactional(propagation="nested"))
        else:
            await enter(atomic_db_session(db) if kind == "seed's" else atomic(db))
        if kind == "savepoint":
            await enter(atomic(db))
        if kind == "bare":
            await enter(atomic)
        if kind == "joined call":
            await enter(transactional())
        if kind == "user's savepoint":
            await write(db, "before")
            await enter((await db_session(db)).begin_nested())
        yield


BLOCKS = [
    "at the top",
    "inside a boundary",
    "seed's",
    "savepoint",
    "bare",
    "nested",
    "bare nested",
    "joined call",
    "user's savepoint",
]
