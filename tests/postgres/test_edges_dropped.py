"""The pooled connection died since its last use, heard or unheard. Always on a pool of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.notes import write
from tests.postgres.edges import EVERY_UNIT, Edge, Unit
from tests.told import committed, rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    atomic,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    transactional,
)


class TestDroppedWhileIdle:
    """The pooled connection died since its last use, unheard: BEGIN is the first to meet it."""

    async def drop(self, edge: Edge) -> int:
        await transactional(write)(edge.db, "before")
        pid = await edge.backend()
        edge.wire.silent = True
        await edge.kill()
        await edge.wire.quiet()
        edge.wire.silent = False
        return pid

    @EVERY_UNIT
    async def test_error_leaves_and_the_next_unit_works(self, edge: Edge, unit: Unit) -> None:
        async def body() -> None:
            watch(edge.told, "unit")
            await write(edge.db, "lost")

        pid = await self.drop(edge)
        with pytest.raises(DBAPIError) as caught:
            await unit(edge.db, body)
        assert caught.value.connection_invalidated
        assert edge.told == rolled_back("unit")
        await edge.works("before", other=pid)

    async def test_swallowed_dooms_the_transaction_that_it_was(self, edge: Edge) -> None:
        pid = await self.drop(edge)
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                watch(edge.told, "unit")
                with swallowed(DBAPIError) as first:
                    await write(edge.db, "lost")
                with pytest.raises(UnexpectedRollbackError) as refused:
                    await write(edge.db, "refused")
                assert refused.value.__cause__ is first.error
        assert caught.value.__cause__ is first.error
        assert edge.told == rolled_back("unit")
        await edge.works("before", other=pid)

    async def test_rollback_by_hand_mends(self, edge: Edge) -> None:
        await self.drop(edge)
        async with transactional():
            with swallowed(DBAPIError):
                await write(edge.db, "lost")
            await rollback_db_session(edge.db)
            await write(edge.db, "kept")
        await edge.works("before", "kept")

    async def test_atomic_block_fails_alone(self, edge: Edge) -> None:
        await self.drop(edge)
        async with transactional():
            with swallowed(DBAPIError):
                async with atomic(edge.db):
                    await write(edge.db, "lost")
            await write(edge.db, "kept")
        await edge.works("before", "kept")

    @pytest.mark.parametrize("block", [new_non_ctx_session, new_non_ctx_atomic_session])
    async def test_session_outside_any_context_raises_it(self, edge: Edge, block: Callable) -> None:
        pid = await self.drop(edge)
        with pytest.raises(DBAPIError):
            async with block(edge.db) as session:
                session.add(Note(text="lost"))
                await session.flush()
        await edge.works("before", other=pid)


@EVERY_UNIT
async def test_connection_that_is_known_to_be_closed_is_replaced(edge: Edge, unit: Unit) -> None:
    """The pool gives it to nobody: no unit fails for it."""
    await transactional(write)(edge.db, "before")
    pid = await edge.backend()
    async with (await edge.db.engine()).connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
    await edge.kill()
    while not raw.is_closed():
        await edge.judge.fetch("SELECT 1")
    await unit(edge.db, lambda: edge.write_and_watch("kept"))
    assert edge.told == committed("unit")
    await edge.works("before", "kept", other=pid)
