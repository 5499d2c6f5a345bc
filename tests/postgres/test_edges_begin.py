"""BEGIN was accepted, and a setting that rode on it was not. Always on a pool of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.mistakes import swallowed
from tests.notes import count, write
from tests.postgres.edges import Edge, edge_of
from tests.postgres.watching import until_idle
from tests.server import Server
from tests.told import rolled_back, watch
from txkit import UnexpectedRollbackError, atomic, commit_db_session, new_context, transactional

DAYS_25_S = 2_147_484.0  # what PostgreSQL counts in milliseconds ends just before
UNITS: dict[str, Any] = {
    "required": transactional(timeout_s=60),
    "requires_new": transactional(propagation="requires_new", timeout_s=60),
    "new_context": new_context(timeout_s=60),
    "with other settings": transactional(timeout_s=60, read_only=False, isolation="SERIALIZABLE"),
}


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server, pool_timeout=1):
        await transactional(count)(one.db)  # connected
        yield one


async def refuse(edge: Edge, whether: bool = True) -> None:
    """Take from the server, in this database, the function by which limits are set."""
    old, new = ("set_config", "gone") if whether else ("gone", "set_config")
    await edge.judge.fetch(f"ALTER FUNCTION pg_catalog.{old}(text, text, boolean) RENAME TO {new}")


async def nothing_is_left(edge: Edge) -> None:
    """No transaction is idle, and the next ones begin: with no settings, and with them."""
    await until_idle(edge.judge)  # the server sees a moment later that we have hung up
    await refuse(edge, False)
    await edge.works()
    async with transactional(timeout_s=60):
        assert await ask(edge.db, "SHOW statement_timeout") != "0"
    async with transactional():
        assert await ask(edge.db, "SHOW statement_timeout") == "0"


@BOTH_FACES
@pytest.mark.parametrize("unit", UNITS)
async def test_refused_setting_leaves_no_transaction_behind(
    edge: Edge, run: Run, unit: str
) -> None:
    async def body() -> None:
        watch(edge.told, "unit")
        await write(edge.db, "lost")

    await refuse(edge)
    with pytest.raises(DBAPIError, match="set_config"):
        await run(UNITS[unit], body)
    assert edge.told == rolled_back("unit")
    await nothing_is_left(edge)


@pytest.mark.parametrize("inside", ["atomic", "nested", "joined"])
async def test_it_leaves_what_is_inside_too(edge: Edge, inside: str) -> None:
    part: Any = {
        "atomic": atomic(edge.db),
        "nested": transactional(propagation="nested"),
        "joined": transactional(),
    }[inside]
    await refuse(edge)
    with pytest.raises(DBAPIError, match="set_config"):
        async with transactional(timeout_s=60):
            watch(edge.told, "unit")
            async with part:
                await write(edge.db, "lost")
    assert edge.told == rolled_back("unit")
    await nothing_is_left(edge)


async def test_swallowed_it_dooms_the_unit(edge: Edge) -> None:
    await refuse(edge)
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional(timeout_s=60):
            watch(edge.told, "unit")
            with swallowed(DBAPIError) as first:
                await write(edge.db, "lost")
    assert caught.value.__cause__ is first.error
    assert edge.told == rolled_back("unit")
    await nothing_is_left(edge)


async def test_second_transaction_of_a_unit_can_not_begin(edge: Edge) -> None:
    """What was committed early stays."""
    with pytest.raises(DBAPIError, match="set_config"):
        async with transactional(timeout_s=60):
            await write(edge.db, "kept")
            await commit_db_session(edge.db)
            await refuse(edge)
            await write(edge.db, "lost")
    assert await edge.judge.texts() == ["kept"]
    await until_idle(edge.judge)  # the server sees a moment later that we have hung up
    await refuse(edge, False)
    await edge.works("kept")


@BOTH_FACES
@pytest.mark.parametrize("timeout_s", [DAYS_25_S, 3e6, 1e12])
async def test_limit_longer_than_the_servers_longest_works(
    edge: Edge, run: Run, timeout_s: float
) -> None:
    """The server's own limit is its longest then: 24.8 days."""

    async def body() -> None:
        assert await ask(edge.db, "SHOW statement_timeout") == "2147483647ms"
        assert await ask(edge.db, "SHOW lock_timeout") == "2147483647ms"
        await write(edge.db, "kept")

    await run(transactional(timeout_s=timeout_s), body)
    await edge.works("kept")
