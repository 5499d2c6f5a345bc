"""@transactional, @new_context and blocks: who commits, who rolls back, who joins."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from txkit import Database, transactional


async def test_return_commits(db: Database, pg: PostgresJudge) -> None:
    @transactional
    async def unit() -> str:
        await write(db, "a")
        return "done"

    assert await unit() == "done"
    assert await pg.texts() == ["a"]


async def test_exception_rolls_back_and_leaves_unchanged(db: Database, pg: PostgresJudge) -> None:
    error = Boom("x")

    @transactional
    async def unit() -> None:
        await write(db, "a")
        raise error

    with pytest.raises(Boom) as caught:
        await unit()
    assert caught.value is error
    assert await pg.texts() == []


async def test_cancelled_in_body_rolls_back(db: Database, pg: PostgresJudge) -> None:
    reached = asyncio.Event()

    @transactional
    async def unit() -> None:
        await write(db, "a")
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(unit())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pg.texts() == []
