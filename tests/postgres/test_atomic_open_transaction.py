"""What only the server knows: whether committing first loses or reveals anything."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from tests.conftest import PostgresJudge
from tests.notes import count, note, write
from txkit import Database, OpenTransactionError, atomic, db_session, transactional


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT * FROM note FOR UPDATE", "locked rows"),
        ("SELECT * FROM note FOR KEY SHARE", "locked rows"),
        ("LOCK TABLE note IN SHARE MODE", "no plain SELECT"),
        ("SELECT pg_advisory_xact_lock(7)", "lock"),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "no plain SELECT"),
        ("DECLARE c CURSOR FOR SELECT 1", "no plain SELECT"),
        ("SET LOCAL app.tenant = '7'", "no plain SELECT"),
        ("NOTIFY channel, 'paid'", "no plain SELECT"),
        ("CREATE TEMP TABLE t (x int) ON COMMIT DROP", "no plain SELECT"),
        ("SELECT pg_advisory_lock(7), pg_advisory_unlock(7), txid_current()", "wrote"),
    ],
)
async def test_harm_is_found(db: Database, pg: PostgresJudge, statement: str, reason: str) -> None:
    await pg.fetch("INSERT INTO note (text) VALUES ('there')")
    async with transactional():
        await (await db_session(db)).execute(text(statement))
        with pytest.raises(OpenTransactionError) as caught:
            async with atomic(db):
                raise AssertionError
        assert reason in caught.value.reason


async def test_open_stream_is_found(db: Database, pg: PostgresJudge) -> None:
    await pg.fetch("INSERT INTO note (text) SELECT 'x' FROM generate_series(1, 2000)")
    async with transactional():
        session = await db_session(db)
        result = await session.stream(select(note), execution_options={"yield_per": 10})
        assert await result.fetchone()
        with pytest.raises(OpenTransactionError, match="streamed"):
            async with atomic(db):
                raise AssertionError
        assert len(await result.fetchall()) == 1999


async def test_reads_are_committed_first(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        await count(db)
        async with atomic(db):
            await write(db, "a")
        assert await pg.texts() == ["a"]
