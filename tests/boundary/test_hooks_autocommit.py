"""Hooks of a context in autocommit: nothing waits to be committed, nothing can be rolled back.

On both backends, as a decorated function and as a block.
"""

from __future__ import annotations

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, count, write
from tests.told import committed, rolled_back, unknown, watch
from txkit import (
    TransactionRequiredError,
    after_commit,
    atomic,
    before_commit,
    db_session,
    in_transaction,
    set_rollback_only,
    transactional,
)

in_autocommit = pytest.mark.parametrize("propagation", ["supports", "not_supported", "never"])


@in_autocommit
@BOTH_FACES
class TestAlone:
    async def test_good_end_counts_as_committed(
        self, place: Place, run: Run, propagation: str
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "durable")
            assert told == []
            assert await place.texts() == ["durable"]

        await run(transactional(propagation=propagation), body)
        assert told == committed("unit")

    async def test_error_after_a_statement_leaves_the_outcome_unknown(
        self, place: Place, run: Run, propagation: str
    ) -> None:
        """What was sent is durable, the rest never happened."""
        told: list[str] = []

        async def body() -> None:
            watch(told, "unit")
            await write(place.db, "durable")
            raise Boom

        with pytest.raises(Boom):
            await run(transactional(propagation=propagation), body)
        assert told == unknown("unit")
        assert await place.texts() == ["durable"]

    async def test_error_before_any_statement_counts_as_rolled_back(
        self, place: Place, run: Run, propagation: str
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            await db_session(place.db)
            watch(told, "unit")
            raise Boom

        with pytest.raises(Boom):
            await run(transactional(propagation=propagation), body)
        assert told == rolled_back("unit")


async def test_before_commit_hook_is_flushed_at_the_end(place: Place) -> None:
    async def hook() -> None:
        assert not in_transaction()
        (await db_session(place.db)).add(Note(text="hook"))

    async with transactional(propagation="never"):
        before_commit(hook)
        await write(place.db, "body")
    assert await place.texts() == ["body", "hook"]


async def test_hook_can_not_ask_for_a_rollback(place: Place) -> None:
    async with transactional(propagation="never"):
        await write(place.db, "durable")

        def hook() -> None:
            with pytest.raises(TransactionRequiredError):
                set_rollback_only()

        before_commit(hook)
    assert await place.texts() == ["durable"]


@pytest.mark.parametrize("joined", ["supports", "not_supported", "never"])
async def test_joined_call_registers_with_the_context_it_joined(place: Place, joined: str) -> None:
    told: list[str] = []

    @transactional(propagation=joined)
    async def inner() -> None:
        watch(told, "joined")
        await write(place.db, "durable")

    async with transactional(propagation="not_supported"):
        await inner()
        assert told == []
    assert told == committed("joined")


async def test_supports_inside_a_transaction_registers_with_that(place: Place) -> None:
    told: list[str] = []

    @transactional(propagation="supports")
    async def inner() -> None:
        watch(told, "joined")
        await write(place.db, "lost")

    with pytest.raises(Boom):
        async with transactional():
            await inner()
            raise Boom
    assert told == rolled_back("joined")


@BOTH_FACES
async def test_suspended_context_keeps_its_own_hooks(place: Place, run: Run) -> None:
    told: list[str] = []

    async def body() -> None:
        watch(told, "inner")
        await count(place.db)

    with pytest.raises(Boom):
        async with transactional():
            watch(told, "outer")
            await run(transactional(propagation="not_supported"), body)
            assert told == committed("inner")
            told.clear()
            raise Boom
    assert told == rolled_back("outer")


async def test_unit_inside_has_hooks_of_its_own(place: Place) -> None:
    """For atomic and the like a context in autocommit counts as none."""
    told: list[str] = []
    with pytest.raises(Boom):
        async with transactional(propagation="never"):
            watch(told, "autocommit")
            async with atomic(place.db):
                after_commit(lambda: told.append("atomic"))
                await write(place.db, "kept")
            async with transactional():
                after_commit(lambda: told.append("transactional"))
                await write(place.db, "kept too")
            assert told == ["atomic", "transactional"]
            told.clear()
            raise Boom
    assert told == rolled_back("autocommit")
    assert await place.texts() == ["kept", "kept too"]
