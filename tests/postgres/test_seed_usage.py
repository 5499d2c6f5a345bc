"""Every usage of context-async-sqlalchemy, on txkit, with a decorated entry function.

The shapes are the seed's; each test checks the effect that the seed states.
"""

from __future__ import annotations

import asyncio

import pytest
from fastapi import HTTPException
from sqlalchemy import insert, text

from tests.conftest import PostgresJudge
from tests.notes import note
from txkit import (
    Database,
    atomic_db_session,
    close_db_session,
    commit_db_session,
    db_session,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    run_in_new_ctx,
    transactional,
)


@pytest.fixture
def connection(db: Database) -> Database:
    return db


async def insert_one(connection: Database, words: str) -> None:
    session = await db_session(connection)
    await session.execute(insert(note).values(text=words))


async def pid(connection: Database) -> int:
    session = await db_session(connection)
    return (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()


async def transaction(connection: Database) -> str:
    session = await db_session(connection)
    return (await session.execute(text("SELECT pg_current_xact_id()::text"))).scalar_one()


async def test_basic(connection: Database, pg: PostgresJudge) -> None:
    @transactional
    async def handler() -> None:
        session = await db_session(connection)
        assert await pg.backends() == []
        await session.execute(insert(note).values(text="basic"))
        assert [state for _, state in await pg.backends()] == ["idle in transaction"]
        assert await pg.texts() == []

    await handler()
    assert await pg.texts() == ["basic"]


async def test_atomic(connection: Database, pg: PostgresJudge) -> None:
    @transactional
    async def handler() -> None:
        async with atomic_db_session(connection):
            await insert_one(connection, "first")
            first = await transaction(connection)
        assert await pg.texts() == ["first"]
        await insert_one(connection, "second")
        assert await transaction(connection) != first
        assert await pg.texts() == ["first"]

    await handler()
    assert await pg.texts() == ["first", "second"]


async def test_manual_commit_and_close(connection: Database, pg: PostgresJudge) -> None:
    pool = (await connection.engine()).pool

    @transactional
    async def handler() -> None:
        session = await db_session(connection)
        await insert_one(connection, "1")
        await session.commit()
        assert await pg.texts() == ["1"]

        await insert_one(connection, "2")
        await commit_db_session(connection)
        await close_db_session(connection)
        assert await pg.texts() == ["1", "2"]
        assert pool.checkedout() == 0  # type: ignore[attr-defined]

        await insert_one(connection, "3")
        third, backend = await transaction(connection), await pid(connection)
        await insert_one(connection, "4")
        assert (await transaction(connection), await pid(connection)) == (third, backend)
        assert await db_session(connection) is not session
        assert await pg.texts() == ["1", "2"]

    await handler()
    assert await pg.texts() == ["1", "2", "3", "4"]


async def test_several_sessions_side_by_side(connection: Database, pg: PostgresJudge) -> None:
    together = asyncio.Barrier(5)
    backends: set[int] = set()

    async def in_context(words: str) -> None:
        await insert_one(connection, words)
        backends.add(await pid(connection))
        await together.wait()

    async def by_hand(words: str) -> None:
        await in_context(words)
        await commit_db_session(connection)
        await close_db_session(connection)

    async def own(words: str) -> None:
        async with new_non_ctx_atomic_session(connection) as session:
            await session.execute(insert(note).values(text=words))
            await together.wait()

    async def own_by_hand(words: str) -> None:
        async with new_non_ctx_session(connection) as session:
            await session.execute(insert(note).values(text=words))
            await together.wait()
            await session.commit()

    @transactional
    async def handler() -> None:
        await asyncio.gather(
            in_context("context"),
            run_in_new_ctx(in_context, "new context"),
            run_in_new_ctx(by_hand, "new context, by hand"),
            own("own"),
            own_by_hand("own, by hand"),
        )
        assert "context" not in await pg.texts()
        assert len(await pg.texts()) == 4

    await handler()
    assert len(backends) == 3
    assert sorted(await pg.texts()) == [
        "context",
        "new context",
        "new context, by hand",
        "own",
        "own, by hand",
    ]


@pytest.mark.parametrize("error", [Exception("some"), HTTPException(status_code=500)])
async def test_rollback_by_exception(
    connection: Database, pg: PostgresJudge, error: Exception
) -> None:
    @transactional
    async def handler() -> None:
        await insert_one(connection, "lost")
        raise error

    with pytest.raises(type(error)) as caught:
        await handler()
    assert caught.value is error
    assert await pg.texts() == []


async def test_rollback_by_hand(connection: Database, pg: PostgresJudge) -> None:
    @transactional
    async def handler() -> None:
        await insert_one(connection, "lost")
        await rollback_db_session(connection)
        await insert_one(connection, "lost too")
        session = await db_session(connection)
        await session.rollback()

    await handler()
    assert await pg.texts() == []
