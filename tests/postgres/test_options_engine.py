"""Options beside those of the engine and the server: which holds, and that none is left behind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from tests.boundary.faces import BOTH_FACES, Run
from tests.conftest import PostgresJudge
from tests.notes import count, write
from tests.postgres.test_options import shown
from tests.postgres.watching import pool_of_one
from txkit import (
    Database,
    IncompatibleTransactionError,
    commit_db_session,
    transactional,
)

LEVEL = "REPEATABLE READ"
SOURCES = ("engine", "session factory", "server")


@contextlib.asynccontextmanager
async def with_level(pg: PostgresJudge, source: str) -> AsyncIterator[Database]:
    """Open a Database whose transactions are REPEATABLE READ where nothing is declared."""
    options: dict[str, Any] = {}
    if source == "engine":
        options = {"isolation_level": LEVEL}
    elif source == "session factory":
        options["session_factory"] = lambda engine: async_sessionmaker(
            engine.execution_options(isolation_level=LEVEL)
        )
    else:
        name = pg.url.rpartition("/")[2]
        await pg.fetch(
            f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'"
        )
    async with pool_of_one(pg, **options) as db:
        yield db


@pytest.mark.parametrize("source", SOURCES)
async def test_level_holds_where_none_is_declared(pg: PostgresJudge, source: str) -> None:
    async with with_level(pg, source) as db:
        for _ in range(2):
            async with transactional():
                assert await shown(db) == "repeatable read, off, off"
            async with transactional(read_only=True):
                assert await shown(db) == "repeatable read, on, off"
            async with transactional(isolation="SERIALIZABLE"):
                assert await shown(db) == "serializable, off, off"
                await commit_db_session(db)
                assert await shown(db) == "serializable, off, off"
            async with transactional(isolation="READ COMMITTED"):
                assert await shown(db) == "read committed, off, off"


@pytest.mark.parametrize("source", SOURCES)
async def test_autocommit_is_none_the_less_real(pg: PostgresJudge, source: str) -> None:
    async with with_level(pg, source) as db:
        for how in ("not_supported", "supports", "never"):
            async with transactional(propagation=how):
                await write(db, how)
                assert (await pg.texts())[-1] == how


@BOTH_FACES
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("how", ["required", "nested"])
@pytest.mark.parametrize("in_use", [True, False])
async def test_joined_call_must_ask_for_it(
    pg: PostgresJudge, run: Run, source: str, how: str, in_use: bool
) -> None:
    """Also where the Database comes into use inside the joined call."""

    async def use() -> None:
        assert await shown(db) == "repeatable read, off, off"

    async with with_level(pg, source) as db:
        async with transactional(name="import_day"):
            if in_use:
                await write(db, "a")
            for other in ("READ COMMITTED", "SERIALIZABLE"):
                with pytest.raises(IncompatibleTransactionError) as caught:
                    await run(new_caught(how, other), use)
                error = caught.value
                assert (error.asked, error.found) == (other, LEVEL)
                assert (error.function, error.boundary) == ("close_books", "import_day")
            if in_use:
                await run(transactional(propagation=how, isolation=LEVEL), use)
                await write(db, "b")
    assert await pg.texts() == (["a", "b"] if in_use else [])


def new_caught(how: str, level: str) -> Any:
    return transactional(
        propagation=how, isolation=level, name="close_books", no_rollback_for=Exception
    )


@pytest.mark.parametrize("by", ["url", "factory"])
@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": LEVEL},
        {"postgresql_readonly": True},
        {"postgresql_deferrable": True},
    ],
    ids=str,
)
async def test_execution_options_of_the_engine_that_would_win_are_refused(
    pg: PostgresJudge, by: str, options: dict[str, Any]
) -> None:
    """SQLAlchemy applies them after those of a unit, which would be ignored."""
    (option,) = options
    with pytest.raises((ValueError, TypeError), match=option):
        if by == "url":
            Database(pg.url, execution_options=options)
        else:
            url = pg.url.replace("postgresql:", "postgresql+asyncpg:")
            db = Database(
                engine_factory=lambda _: create_async_engine(url, execution_options=options)
            )
            await db.engine()


def only_reads(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine.execution_options(postgresql_readonly=True))


@BOTH_FACES
@pytest.mark.parametrize("source", ["server", "session factory"])
async def test_explicit_read_write_is_honoured(pg: PostgresJudge, run: Run, source: str) -> None:
    """Scenario: transactions are read-only where nothing is declared; a unit asks for the contrary.
    Outcome: it may write."""
    factory = None if source == "server" else only_reads
    if source == "server":
        name = pg.url.rpartition("/")[2]
        await pg.fetch(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with pool_of_one(pg, session_factory=factory) as db:
        async with transactional():
            assert await shown(db) == "read committed, on, off"
        await run(transactional(read_only=False), lambda: write(db, "a"))
        async with transactional():
            assert await shown(db) == "read committed, on, off"
    assert await pg.texts() == ["a"]


@BOTH_FACES
@pytest.mark.parametrize("how", ["required", "nested"])
async def test_explicit_read_write_does_not_join_sessions_that_only_read(
    pg: PostgresJudge, run: Run, how: str
) -> None:
    async def body() -> None:
        raise AssertionError

    async with pool_of_one(pg, session_factory=only_reads) as db:
        async with transactional():
            await count(db)
            with pytest.raises(IncompatibleTransactionError) as caught:
                await run(transactional(propagation=how, read_only=False), body)
            assert (caught.value.asked, caught.value.found) == (False, True)
