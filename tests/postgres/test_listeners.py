"""A listener that sends the transaction's first statement, as row-level security is set up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.watching import pool_of_one
from txkit import Database, atomic, commit_db_session, new_context, transactional

STATEMENTS = "current_setting('statement_timeout')"
SHOWN = (
    f"SELECT current_setting('app.user', true), {STATEMENTS} <> '0',"
    " current_setting('transaction_read_only'), current_setting('transaction_isolation')"
)


class WithUser(Session):
    """Every transaction knows its user."""


@event.listens_for(WithUser, "after_begin")
def _set_user(_: Session, __: SessionTransaction, connection: Connection) -> None:
    connection.execute(text("SELECT set_config('app.user', 'ada', true)"))


def with_user(engine: AsyncEngine) -> async_sessionmaker[Any]:
    return async_sessionmaker(engine, sync_session_class=WithUser)


@pytest.fixture
async def secured(pg: PostgresJudge) -> AsyncIterator[Database]:
    """A pool of one, on a server whose transactions are read-only by default."""
    settings = {"server_settings": {"default_transaction_read_only": "on"}, "ssl": False}
    async with pool_of_one(pg, session_factory=with_user, connect_args=settings) as db:
        yield db


async def shown(db: Database) -> str:
    sql = f"SELECT concat_ws(', ', a, b, c, d) FROM ({SHOWN}) t (a, b, c, d)"
    return str(await ask(db, sql))


UNITS: dict[str, Any] = {
    "required": transactional(timeout_s=60, read_only=False),
    "requires_new": transactional(propagation="requires_new", timeout_s=60, read_only=False),
    "new_context": new_context(timeout_s=60, read_only=False),
}


@BOTH_FACES
@pytest.mark.parametrize("unit", UNITS)
async def test_options_ride_on_begin_all_the_same(
    secured: Database, pg: PostgresJudge, run: Run, unit: str
) -> None:
    async def body() -> None:
        assert await shown(secured) == "ada, t, off, read committed"
        await write(secured, "a")
        await commit_db_session(secured)
        assert await shown(secured) == "ada, t, off, read committed"
        async with atomic(secured, current_transaction="commit"):
            assert await shown(secured) == "ada, t, off, read committed"
            await write(secured, "b")

    await run(UNITS[unit], body)
    assert await pg.texts() == ["a", "b"]


async def test_nothing_of_them_is_left_for_the_next_unit(secured: Database) -> None:
    """What did not ride on its own BEGIN would ride on that of the next one."""
    for _ in range(2):
        async with transactional(timeout_s=60, read_only=False):
            assert await shown(secured) == "ada, t, off, read committed"
        async with transactional():
            assert await shown(secured) == "ada, f, on, read committed"


async def test_other_options_too(secured: Database) -> None:
    async with transactional(timeout_s=60, read_only=False, isolation="SERIALIZABLE"):
        assert await shown(secured) == "ada, t, off, serializable"
