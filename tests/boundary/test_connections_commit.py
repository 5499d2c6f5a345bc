"""``connection.commit()`` of a session's connection: no way to a commit behind the session.

On both backends.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.mistakes import swallowed
from tests.conftest import Place
from tests.notes import Boom, note, write
from tests.told import committed, rolled_back, watch
from txkit import (
    AtomicControlError,
    atomic,
    db_session,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    transactional,
)


async def commit_of(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def sync_commit_of(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.connection().commit())


EVERY_COMMIT = pytest.mark.parametrize("commit", [commit_of, sync_commit_of])
SEALED: dict[str, Any] = {
    "atomic": atomic,
    "nested": transactional(propagation="nested"),
}


@EVERY_COMMIT
class TestCommitOfTheConnection:
    @BOTH_FACES
    async def test_is_refused_and_nothing_is_durable(
        self, place: Place, run: Run, commit: Any
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "lost")
            await commit(await db_session(place.db))

        with pytest.raises(InvalidRequestError, match="commit_db_session"):
            await run(transactional(), body)
        assert told == rolled_back("unit")
        assert await place.texts() == []

    @pytest.mark.parametrize("block", SEALED)
    async def test_is_refused_inside_what_is_sealed(
        self, place: Place, commit: Any, block: str
    ) -> None:
        with pytest.raises(AtomicControlError) as caught:
            async with transactional():
                async with SEALED[block]:
                    await write(place.db, "lost")
                    await commit(await db_session(place.db))
        assert caught.value.operation == "connection.commit()"
        assert await place.texts() == []

    async def test_is_refused_in_an_atomic_session_outside_any_context(
        self, place: Place, commit: Any
    ) -> None:
        with pytest.raises(AtomicControlError) as caught:
            async with new_non_ctx_atomic_session(place.db) as session:
                await session.execute(insert(note).values(text="lost"))
                await commit(session)
        assert caught.value.operation == "connection.commit()"
        assert await place.texts() == []

    @BOTH_FACES
    @pytest.mark.parametrize("fails", [False, True])
    async def test_unit_goes_on_after_the_refusal(
        self, place: Place, run: Run, commit: Any, fails: bool
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "a")
            with swallowed(InvalidRequestError):
                await commit(await db_session(place.db))
            assert (told, await place.texts()) == ([], [])
            await write(place.db, "b")
            if fails:
                raise Boom

        with pytest.raises(Boom) if fails else contextlib.nullcontext():
            await run(transactional(), body)
        assert told == (rolled_back("unit") if fails else committed("unit"))
        assert await place.texts() == ([] if fails else ["a", "b"])

    @pytest.mark.parametrize("block", SEALED)
    async def test_sealed_block_goes_on_after_the_refusal(
        self, place: Place, commit: Any, block: str
    ) -> None:
        async with transactional():
            async with SEALED[block]:
                await write(place.db, "a")
                with swallowed(AtomicControlError):
                    await commit(await db_session(place.db))
                await write(place.db, "b")
            await write(place.db, "c")
        assert await place.texts() == ["a", "b", "c"]

    async def test_atomic_session_outside_any_context_goes_on(
        self, place: Place, commit: Any
    ) -> None:
        async with new_non_ctx_atomic_session(place.db) as session:
            await session.execute(insert(note).values(text="a"))
            with swallowed(AtomicControlError):
                await commit(session)
            assert await place.texts() == []
            await session.execute(insert(note).values(text="b"))
        assert await place.texts() == ["a", "b"]

    async def test_is_the_users_in_a_session_of_his_own(self, place: Place, commit: Any) -> None:
        async with new_non_ctx_session(place.db) as session:
            await session.execute(insert(note).values(text="lost"))
            await commit(session)
            assert await place.texts() == ["lost"]
            await session.close()  # SQLAlchemy's session takes it for open

    @pytest.mark.filterwarnings("ignore:transaction already deassociated")  # SQLAlchemy's session
    @pytest.mark.parametrize("how", ["not_supported", "supports", "never"])
    async def test_ends_nothing_in_autocommit(self, place: Place, commit: Any, how: str) -> None:
        async with transactional(propagation=how):
            await write(place.db, "a")
            await commit(await db_session(place.db))
            assert await place.texts() == ["a"]
            await rollback_db_session(place.db)
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]
