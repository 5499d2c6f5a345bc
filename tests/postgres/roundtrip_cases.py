"""Units on txkit, the same work by hand on plain SQLAlchemy, and the statements that both send."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.notes import Boom, note, write
from tests.told import watch
from txkit import (
    Database,
    atomic,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)

INSERT = "INSERT INTO note (text) VALUES ($1::VARCHAR) RETURNING note.id"


async def add(session: AsyncSession) -> None:
    await session.execute(insert(note).values(text="a"))


class Case:
    """A unit on txkit, the same by hand, and what both send."""

    def __init__(self, unit: Callable, by_hand: Callable, *sent: str) -> None:
        self.unit = unit
        self.by_hand = by_hand
        self.sent = list(sent)


async def one_transaction(plain: async_sessionmaker[AsyncSession]) -> None:
    async with plain.begin() as session:
        await add(session)


async def unit(db: Database) -> None:
    await transactional(write)(db, "a")


async def block(db: Database) -> None:
    async with transactional():
        await write(db, "a")


async def own_context(db: Database) -> None:
    await new_context(write)(db, "a")


async def atomic_at_the_top(db: Database) -> None:
    await atomic(db)(write)(db, "a")


async def atomic_in_a_boundary(db: Database) -> None:
    async with transactional():
        async with atomic(db):
            await write(db, "a")


async def joined(db: Database) -> None:
    service = transactional(write)
    async with transactional(), transactional(), transactional():
        await service(db, "a")


async def own_session(db: Database) -> None:
    async with new_non_ctx_atomic_session(db) as session:
        await add(session)


async def own_session_by_hand(db: Database) -> None:
    async with new_non_ctx_session(db) as session:
        await add(session)
        await session.commit()


async def with_hooks(db: Database) -> None:
    told: list[str] = []
    async with transactional():
        watch(told, "before")
        await write(db, "a")
        watch(told, "after")
    assert len(told) == 6


async def nothing(plain: async_sessionmaker[AsyncSession]) -> None:
    async with plain.begin():
        pass


async def unused(db: Database) -> None:
    async with transactional(), atomic(db), atomic(db), transactional(propagation="nested"):
        await db_session(db)


async def two_transactions(plain: async_sessionmaker[AsyncSession]) -> None:
    async with plain() as session:
        await add(session)
        await session.commit()
        await add(session)
        await session.commit()


async def early_commit(db: Database) -> None:
    async with transactional():
        await write(db, "a")
        await commit_db_session(db)
        await write(db, "b")


async def two_blocks(db: Database) -> None:
    async with transactional():
        for _ in range(2):
            async with atomic(db):
                await write(db, "a")


async def savepoint_by_hand(plain: async_sessionmaker[AsyncSession]) -> None:
    async with plain.begin() as session:
        await add(session)
        async with session.begin_nested():
            await add(session)


async def savepoint(db: Database) -> None:
    async with atomic(db):
        await write(db, "a")
        async with atomic(db):
            await write(db, "b")


async def savepoint_by_mode(db: Database) -> None:
    async with transactional():
        await write(db, "a")
        async with atomic(db, current_transaction="savepoint"):
            await write(db, "b")


async def nested(db: Database) -> None:
    async with transactional():
        await write(db, "a")
        await transactional(propagation="nested")(write)(db, "b")


async def users_savepoint(db: Database) -> None:
    async with transactional():
        await write(db, "a")
        async with (await db_session(db)).begin_nested():
            await write(db, "b")


async def rolled_back_by_hand(plain: async_sessionmaker[AsyncSession]) -> None:
    async with plain() as session:
        await add(session)
        await session.rollback()


async def exception(db: Database) -> None:
    with pytest.raises(Boom):
        async with transactional():
            await write(db, "a")
            raise Boom


async def request(db: Database) -> None:
    async with transactional():
        await write(db, "a")
        set_rollback_only()


async def by_hand(db: Database) -> None:
    async with transactional():
        await write(db, "a")
        await rollback_db_session(db)


ONE = ("BEGIN", INSERT, "COMMIT")


SAVED = (
    *ONE[:2],
    "SAVEPOINT sa_savepoint_1",
    INSERT,
    "RELEASE SAVEPOINT sa_savepoint_1",
    "COMMIT",
)


CASES = [
    *(
        Case(unit, one_transaction, *ONE)
        for unit in (
            unit,
            block,
            own_context,
            atomic_at_the_top,
            atomic_in_a_boundary,
            joined,
            own_session,
            own_session_by_hand,
            with_hooks,
        )
    ),
    Case(unused, nothing),
    *(Case(unit, two_transactions, *ONE, *ONE) for unit in (early_commit, two_blocks)),
    *(
        Case(unit, savepoint_by_hand, *SAVED)
        for unit in (savepoint, savepoint_by_mode, nested, users_savepoint)
    ),
    *(
        Case(unit, rolled_back_by_hand, "BEGIN", INSERT, "ROLLBACK")
        for unit in (exception, request, by_hand)
    ),
]
