"""isolation, read_only and deferrable, asked of the server in every transaction of a unit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_atomic import Note
from tests.boundary.test_joining_options import OPTIONS, _name
from tests.conftest import PostgresJudge
from tests.notes import count, write
from tests.postgres.watching import pool_of_one
from tests.postgres.wire import wired
from txkit import (
    Database,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    new_context,
    rollback_db_session,
    transactional,
)

NAMES = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
SHOWN = " || ', ' || ".join(f"current_setting('{name}')" for name in NAMES)
DEFAULT = "read committed, off, off"
EVERY_OPTION = pytest.mark.parametrize(
    "options", [*OPTIONS, {"isolation": "READ UNCOMMITTED", "read_only": None}], ids=_name
)


async def shown(db: Database) -> str:
    """Ask the server what the present transaction is."""
    found: str = await ask(db, f"SELECT {SHOWN}")
    return found


def declared(options: dict[str, Any]) -> str:
    """Give what the server is to say; READ UNCOMMITTED is READ COMMITTED to PostgreSQL."""
    level = (options["isolation"] or "READ COMMITTED").lower().replace("uncommitted", "committed")
    read_only = "on" if options["read_only"] else "off"
    return f"{level}, {read_only}, {'on' if options.get('deferrable') else 'off'}"


class Watched(AsyncSession):
    """A user's own session class."""


FACTORIES: dict[str, Callable[[AsyncEngine], async_sessionmaker[Any]] | None] = {
    "default": None,
    "user's": lambda engine: async_sessionmaker(engine, class_=Watched),
    "user's, on a derived engine": lambda engine: async_sessionmaker(
        engine.execution_options(isolation_level="READ COMMITTED", logging_token="t")
    ),
}


@pytest.mark.parametrize("factory", FACTORIES)
@EVERY_OPTION
async def test_every_transaction_of_the_unit_has_them(
    pg: PostgresJudge, options: dict[str, Any], factory: str
) -> None:
    """The first one, those after an end by hand, atomic blocks, joined calls."""
    async with pool_of_one(pg, session_factory=FACTORIES[factory]) as db:
        async with transactional(**options):
            assert await shown(db) == declared(options)
            await commit_db_session(db)
            assert await shown(db) == declared(options)
            await rollback_db_session(db)
            assert await shown(db) == declared(options)
            await (await db_session(db)).commit()
            async with atomic(db):
                assert await shown(db) == declared(options)
                async with atomic(db):
                    assert await shown(db) == declared(options)
            await close_db_session(db)
            async with transactional, transactional(propagation="nested"):
                assert await shown(db) == declared(options)
        async with transactional():
            assert await shown(db) == DEFAULT


@BOTH_FACES
@EVERY_OPTION
@pytest.mark.parametrize("kind", ["required", "requires_new", "nested", "new_context"])
async def test_opened_in_every_way(
    db: Database, run: Run, options: dict[str, Any], kind: str
) -> None:
    unit = (
        new_context(**options)
        if kind == "new_context"
        else transactional(propagation=kind, **options)
    )
    assert await run(unit, lambda: shown(db)) == declared(options)


@EVERY_OPTION
async def test_inner_unit_has_its_own_and_the_outer_keeps_its(
    db: Database, options: dict[str, Any]
) -> None:
    async with transactional(isolation="REPEATABLE READ"):
        assert await shown(db) == "repeatable read, off, off"
        async with new_context(**options):
            assert await shown(db) == declared(options)
        async with transactional(propagation="not_supported"):
            assert await shown(db) == DEFAULT
        assert await shown(db) == "repeatable read, off, off"
        await commit_db_session(db)
        assert await shown(db) == "repeatable read, off, off"


class TestReadOnly:
    @BOTH_FACES
    @pytest.mark.parametrize("through", ["core", "orm", "atomic", "joined", "nested"])
    async def test_database_refuses_writes(
        self, db: Database, pg: PostgresJudge, run: Run, through: str
    ) -> None:
        async def body() -> None:
            assert await count(db) == 0
            if through == "orm":
                (await db_session(db)).add(Note(text="refused"))
                await (await db_session(db)).flush()
            elif through == "core":
                await write(db, "refused")
            elif through == "atomic":
                await atomic(db, current_transaction="commit")(write)(db, "refused")
            else:
                how = "required" if through == "joined" else "nested"
                await transactional(propagation=how)(write)(db, "refused")

        with pytest.raises(DBAPIError) as caught:
            await run(transactional(read_only=True), body)
        assert caught.value.orig.sqlstate == "25006"  # type: ignore[union-attr]
        assert await pg.texts() == []

    async def test_joining_what_may_write_it_is_not_enforced(
        self, db: Database, pg: PostgresJudge
    ) -> None:
        async with transactional():
            await write(db, "a")
            await transactional(read_only=True)(write)(db, "b")
        assert await pg.texts() == ["a", "b"]


async def test_serializable_is_real(db: Database, pg: PostgresJudge) -> None:
    """Scenario: two units read, then write what the other one read.
    Outcome: one is refused as a serialization failure."""
    both = asyncio.Barrier(2)

    @transactional(isolation="SERIALIZABLE")
    async def unit() -> None:
        rows = await count(db)
        await both.wait()
        await write(db, f"saw {rows}")

    outcomes = await asyncio.gather(unit(), unit(), return_exceptions=True)
    (error,) = [one for one in outcomes if one is not None]
    assert error.orig.sqlstate == "40001"  # type: ignore[union-attr]
    assert await pg.texts() == ["saw 0"]


ROUND_TRIPS = [
    {},
    {"isolation": "SERIALIZABLE"},
    {"read_only": True},
    {"isolation": "SERIALIZABLE", "read_only": True, "deferrable": True},
    {"timeout_s": 5},
    {"isolation": "REPEATABLE READ", "read_only": True, "timeout_s": 5},
]


@pytest.mark.parametrize("options", ROUND_TRIPS, ids=str)
async def test_options_ride_on_begin(pg: PostgresJudge, options: dict[str, Any]) -> None:
    """Three round trips, as without options: BEGIN, the statement, COMMIT; also a second time."""
    async with wired(pg) as (db, wire):
        plain = transactional(count)
        with_options = transactional(**options)(count)
        for unit in (plain, with_options, with_options, plain):  # the first one warms up
            wire.clear()
            await unit(db)
            if unit is with_options:
                assert wire.round_trips == 3
                assert wire.verbs == ["BEGIN", "SELECT", "COMMIT"]


@BOTH_FACES
async def test_options_of_an_unused_unit_send_nothing(pg: PostgresJudge, run: Run) -> None:
    async def body() -> None:
        await db_session(db)

    async with wired(pg) as (db, wire):
        await run(transactional(isolation="SERIALIZABLE", read_only=True, timeout_s=5), body)
        assert wire.sent == []
