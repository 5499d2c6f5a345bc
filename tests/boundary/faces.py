"""What the tests of options and propagation share: both faces, and what the server says.

A unit is an object that ``transactional(...)`` or ``new_context(...)`` gave; it runs a
body as the decorated function or as the ``async with`` block, which must do the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import pytest
from sqlalchemy import text

from tests.conftest import Place, PostgresJudge
from txkit import Database, db_session

Body: TypeAlias = Callable[[], Awaitable[Any]]
Run: TypeAlias = Callable[[Any, Body], Awaitable[Any]]


async def as_function(unit: Any, body: Body) -> Any:
    """Run the body as a decorated function."""

    @unit
    async def function() -> Any:
        return await body()

    return await function()


async def as_block(unit: AbstractAsyncContextManager[Any], body: Body) -> Any:
    """Run the body as a block."""
    async with unit:
        return await body()


BOTH_FACES = pytest.mark.parametrize("run", [as_function, as_block], ids=["function", "block"])


def is_postgres(place: Place) -> bool:
    return isinstance(place.judge, PostgresJudge)


async def ask(db: Database, sql: str, **parameters: object) -> Any:
    """Ask the database through the context's session; give the first value."""
    return (await (await db_session(db)).execute(text(sql), parameters)).scalar()


async def where(place: Place) -> tuple[object, ...]:
    """Say where the running code is at work: the session and, on PostgreSQL, backend and xid."""
    session = await db_session(place.db)
    if not is_postgres(place):
        return (session,)
    asked = "SELECT pg_backend_pid() || ' ' || pg_current_xact_id()"
    return session, await ask(place.db, asked)
