"""The connection dies in the body: what was done is lost, and nobody says otherwise.

The server's process is killed during the body; then an exception leaves, or a
statement follows, or nothing but the end. Always on a pool of one.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.mistakes import (
    swallowed,
)
from tests.boundary.test_atomic import Note
from tests.notes import Boom, count, write
from tests.postgres.edges import EVERY_UNIT, Edge, Unit, atomic_alone, function
from tests.told import rolled_back
from txkit import (
    CommitOutcomeUnknownError,
    UnexpectedRollbackError,
    db_session,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    set_rollback_only,
    transactional,
)


@EVERY_UNIT
class TestUnit:
    """In every kind of unit: its work, its hooks and its connection are gone."""

    async def test_users_exception_leaves_though_the_rollback_fails(
        self, edge: Edge, unit: Unit
    ) -> None:
        async def body() -> None:
            await edge.write_and_watch()
            await edge.kill()
            raise Boom

        pid = await self.warm(edge)
        with pytest.raises(Boom) as caught:
            await unit(edge.db, body)
        assert all("clean" in note for note in getattr(caught.value, "__notes__", []))
        assert edge.told == rolled_back("unit")
        await edge.works(other=pid)

    async def test_statement_that_meets_it_raises_the_drivers_error(
        self, edge: Edge, unit: Unit
    ) -> None:
        async def body() -> None:
            await edge.write_and_watch()
            await edge.kill_seen()
            await count(edge.db)

        pid = await self.warm(edge)
        with pytest.raises(DBAPIError) as caught:
            await unit(edge.db, body)
        assert caught.value.connection_invalidated
        assert edge.told == rolled_back("unit")
        await edge.works(other=pid)

    async def test_swallowed_error_leaves_with_the_end(self, edge: Edge, unit: Unit) -> None:
        async def body() -> None:
            nonlocal first
            await edge.write_and_watch()
            await edge.kill_seen()
            with swallowed(DBAPIError) as first:
                await count(edge.db)
            for _ in range(2):
                with pytest.raises(UnexpectedRollbackError) as refused:
                    await write(edge.db, "refused")
                assert refused.value.__cause__ is first.error

        first: Any = None
        pid = await self.warm(edge)
        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit(edge.db, body)
        assert caught.value.__cause__ is first.error
        assert edge.told == rolled_back("unit")
        await edge.works(other=pid)

    async def test_end_that_knows_it_sends_no_commit(self, edge: Edge, unit: Unit) -> None:
        async def body() -> None:
            await edge.write_and_watch()
            await edge.kill_seen()
            edge.wire.sent.clear()

        pid = await self.warm(edge)
        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit(edge.db, body)
        assert isinstance(caught.value.__cause__, DBAPIError)
        assert edge.wire.sent == []
        assert edge.told[-2:] == rolled_back("unit")
        await edge.works(other=pid)

    async def test_end_that_does_not_know_it_is_no_success(self, edge: Edge, unit: Unit) -> None:
        """Whether COMMIT went out before the news came in is chance: both say so."""

        async def body() -> None:
            await edge.write_and_watch()
            await edge.kill()

        pid = await self.warm(edge)
        with pytest.raises((UnexpectedRollbackError, CommitOutcomeUnknownError)):
            await unit(edge.db, body)
        assert edge.told[-1] in {"unit: rolled_back", "unit: unknown"}
        await edge.works(other=pid)

    async def test_request_returns_all_the_same(self, edge: Edge, unit: Unit) -> None:
        async def body() -> None:
            await edge.write_and_watch()
            await edge.kill_seen()
            with swallowed(DBAPIError):
                await count(edge.db)
            set_rollback_only()

        pid = await self.warm(edge)
        if unit.__name__ == "joined":  # it is not its own transaction that it gave up
            with pytest.raises(UnexpectedRollbackError):
                await unit(edge.db, body)
        else:
            await unit(edge.db, body)
        assert edge.told == rolled_back("unit")
        await edge.works(other=pid)

    async def warm(self, edge: Edge) -> int:
        """Open the one connection; nothing is left of the first unit but that."""
        async with transactional():
            await (await db_session(edge.db)).connection()
        return await edge.backend()


class TestOwnSession:
    async def test_atomic_one_raises(self, edge: Edge) -> None:
        with pytest.raises((UnexpectedRollbackError, CommitOutcomeUnknownError)):
            async with new_non_ctx_atomic_session(edge.db) as session:
                session.add(Note(text="lost"))
                await session.flush()
                await edge.kill()
        await edge.works()

    async def test_users_exception_leaves(self, edge: Edge) -> None:
        for block in (new_non_ctx_session, new_non_ctx_atomic_session):
            with pytest.raises(Boom):
                async with block(edge.db) as session:
                    session.add(Note(text="lost"))
                    await session.flush()
                    await edge.kill()
                    raise Boom
        await edge.works()


@pytest.mark.parametrize("unit", [function, atomic_alone])
async def test_changes_that_wait_to_be_flushed_meet_it(edge: Edge, unit: Unit) -> None:
    async def body() -> None:
        await edge.write_and_watch()
        (await db_session(edge.db)).add(Note(text="lost too"))
        await edge.kill_seen()

    with pytest.raises(DBAPIError) as caught:
        await unit(edge.db, body)
    assert caught.value.connection_invalidated
    assert edge.told[-2:] == rolled_back("unit")
    await edge.works()
