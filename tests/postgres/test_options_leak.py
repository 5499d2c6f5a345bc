"""Options end with their unit: the next user of the connection sees the defaults, whoever it is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.conftest import PostgresJudge
from tests.notes import Boom, count, write
from tests.postgres.test_options import DEFAULT, SHOWN, shown
from tests.postgres.watching import kill_seen, pool_of_one
from txkit import (
    Database,
    TransactionTimeoutError,
    close_db_session,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_atomic_session,
    transactional,
)


async def _ends(db: Database, pg: PostgresJudge, end: str) -> None:
    """End the unit in this way, from inside."""
    if end == "exception":
        raise Boom
    if end == "cancellation":
        raise asyncio.CancelledError
    if end == "cancelled while it waits":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()
    if end == "killed statement":
        await ask(db, "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")
    if end == "killed backend":
        await kill_seen(db, pg)
        await count(db)
    if end == "refused write":
        await ask(db, "INSERT INTO note (text) VALUES ('refused') RETURNING id")
    if end == "timeout":
        await asyncio.Event().wait()
    if end == "close by hand":
        await close_db_session(db)
    if end == "early commit":
        await commit_db_session(db)


ENDS = {
    "return": None,
    "exception": Boom,
    "cancellation": asyncio.CancelledError,
    "cancelled while it waits": asyncio.CancelledError,
    "killed statement": DBAPIError,
    "killed backend": DBAPIError,
    "refused write": DBAPIError,
    "timeout": TransactionTimeoutError,
    "close by hand": None,
    "early commit": None,
}
LIMITS = "SELECT current_setting('statement_timeout') || current_setting('lock_timeout')"


@BOTH_FACES
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("opened_by", [transactional, new_context])
async def test_next_user_of_the_connection_sees_the_defaults(
    pg: PostgresJudge, run: Run, end: str, opened_by: Any
) -> None:
    """Scenario: a unit with every option ends in every way; the pool has one connection.
    Outcome: nothing of them is left for a unit, a session, or a connection of the engine's."""

    async def body() -> None:
        assert await shown(db) == "serializable, on, on"
        await _ends(db, pg, end)

    options = {"isolation": "SERIALIZABLE", "read_only": True, "deferrable": True}
    timeout_s = 0.05 if end == "timeout" else 60
    async with pool_of_one(pg) as db:
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                expected = ENDS[end]
                if expected is not None:
                    stack.enter_context(pytest.raises(expected))
                await run(opened_by(timeout_s=timeout_s, **options), body)
            async with (await db.engine()).connect() as connection:
                assert (await connection.execute(text(f"SELECT {SHOWN}"))).scalar() == DEFAULT
                assert (await connection.execute(text(LIMITS))).scalar() == "00"
            async with new_non_ctx_atomic_session(db) as session:
                assert (await session.execute(text(f"SELECT {SHOWN}"))).scalar() == DEFAULT
            async with transactional():
                assert await shown(db) == DEFAULT
                assert await ask(db, LIMITS) == "00"
                await write(db, "writes again")
            async with transactional(propagation="never"):
                assert await ask(db, LIMITS) == "00"
                await (await db_session(db)).execute(text("DELETE FROM note"))
    assert await pg.texts() == []
