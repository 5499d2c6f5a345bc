"""An end that never ends is broken off ``finish_timeout_s`` after the cancellation.

The connection is discarded; what a COMMIT has done is unknown, and the hooks are told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import pytest

from tests.notes import Boom
from tests.postgres.edges import Edge, edge_of
from tests.server import Server
from tests.told import rolled_back, unknown
from tests.ways import session_close, session_commit, session_rollback
from txkit import (
    Database,
    atomic,
    close_db_session,
    commit_db_session,
    rollback_db_session,
    transactional,
)

FINISH_S = 0.2
LATEST_S = 5  # a loaded machine, not a second bound
COMMITTING = ["unit: before", *unknown("unit")]


async def boom(_: Database) -> None:
    raise Boom


async def nothing(_: Database) -> None: ...


@dataclass
class End:
    """A way to end a transaction, whose answer never comes."""

    by: Callable[[Database], Awaitable[object]]
    sends: str
    told: list[str] = field(default_factory=lambda: COMMITTING)
    rows: tuple[str, ...] = ("unit",)
    is_block: bool = False

    def __str__(self) -> str:
        return self.by.__name__ + ("_of_a_block" if self.is_block else "")


LOST = {"sends": "ROLLBACK", "told": rolled_back("unit"), "rows": ()}
ENDS = [
    End(nothing, "COMMIT"),
    End(nothing, "COMMIT", is_block=True),
    End(commit_db_session, "COMMIT"),
    End(session_commit, "COMMIT"),
    End(boom, **LOST),
    End(boom, **LOST, is_block=True),
    End(rollback_db_session, **LOST),
    End(close_db_session, **LOST),
]


@pytest.fixture
async def edge(server: Server) -> AsyncIterator[Edge]:
    async for one in edge_of(server, finish_timeout_s=FINISH_S):
        async with (await one.db.engine()).connect():
            pass  # what the first connection asks is not of interest
        one.wire.sent.clear()
        yield one


async def run(edge: Edge, end: End) -> None:
    async with transactional():
        if end.is_block:
            async with atomic(edge.db):
                await never_ends(edge, end)
        else:
            await never_ends(edge, end)


async def never_ends(edge: Edge, end: End) -> None:
    await edge.write_and_watch("unit")
    edge.wire.silent = True
    await end.by(edge.db)


async def sent(edge: Edge, statement: str) -> None:
    while not edge.wire.sent or not edge.wire.sent[-1].startswith(statement):
        await asyncio.sleep(0)


async def by_task(edge: Edge, end: End) -> None:
    task = asyncio.create_task(run(edge, end))
    await sent(edge, end.sends)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert "broken off" in "".join(getattr(caught.value, "__notes__", []))


async def by_task_again_and_again(edge: Edge, end: End) -> None:
    task = asyncio.create_task(run(edge, end))
    await sent(edge, end.sends)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.01)
    assert task.cancelled()


async def by_scope(edge: Edge, end: End) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run, edge, end)
        await sent(edge, end.sends)
        group.cancel_scope.cancel()
    assert group.cancel_scope.cancelled_caught


@pytest.mark.parametrize("cancelled", [by_task, by_task_again_and_again, by_scope])
@pytest.mark.parametrize("end", ENDS, ids=str)
async def test_end_without_an_answer_is_broken_off(
    edge: Edge, end: End, cancelled: Callable[[Edge, End], Awaitable[None]]
) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await cancelled(edge, end)
    assert FINISH_S <= loop.time() - start < LATEST_S
    assert edge.told == end.told
    assert (await edge.db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    edge.wire.silent = False
    while await edge.backends():
        await asyncio.sleep(0)
    await edge.works(*end.rows)


@pytest.mark.parametrize("by", [session_rollback, session_close])
async def test_rollback_of_the_session_is_broken_off_by_its_cancellation(
    edge: Edge, by: Callable[[Database], Awaitable[object]]
) -> None:
    """It is SQLAlchemy's own, not finished first: the connection is discarded."""
    end = End(by, **LOST)
    task = asyncio.create_task(run(edge, end))
    await sent(edge, end.sends)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert edge.told == end.told
    assert (await edge.db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    edge.wire.silent = False
    while await edge.backends():
        await asyncio.sleep(0)
    await edge.works()
