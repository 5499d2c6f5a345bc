"""To whom a hook belongs: atomic blocks with a transaction of their own, and the boundary around.

On both backends, as a decorated function and as a block. What is part of another
unit is in ``test_hooks_savepoints``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.boundary.faces import Run, as_block, as_function
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from txkit import (
    Database,
    UnexpectedRollbackError,
    after_commit,
    atomic,
    atomic_db_session,
    before_commit,
    set_rollback_only,
    transactional,
)

Make = Callable[[Database], Any]
OWN: dict[str, tuple[Make, Run]] = {
    "function": (atomic, as_function),
    "block": (atomic, as_block),
    "bare function": (lambda _: atomic(), as_function),
    "bare block": (lambda _: atomic(), as_block),
    "commit first": (lambda db: atomic(db, current_transaction="commit"), as_function),
    "rollback first": (lambda db: atomic(db, current_transaction="rollback"), as_block),
    "append": (lambda db: atomic(db, current_transaction="append"), as_function),
    "seed's": (atomic_db_session, as_block),
}


@pytest.mark.parametrize(("make", "run"), OWN.values(), ids=OWN)
class TestAtomicBlock:
    """A transaction of its own: its hooks don't wait for the boundary."""

    async def test_hooks_run_before_it_returns_whatever_becomes_of_the_boundary(
        self, place: Place, make: Make, run: Run
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "block")
            await write(place.db, "kept")
            assert told == []

        with pytest.raises(Boom):
            async with transactional():
                await run(make(place.db), body)
                assert told == committed("block")
                raise Boom
        assert told == committed("block")
        assert await place.texts() == ["kept"]

    async def test_exception_drops_what_follows_a_commit_and_the_boundary_goes_on(
        self, place: Place, make: Make, run: Run
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "block")
            await write(place.db, "lost")
            raise Boom

        async with transactional():
            watch(told, "boundary")
            with pytest.raises(Boom):
                await run(make(place.db), body)
            assert told == rolled_back("block")
            await write(place.db, "kept")
            told.clear()
        assert told == committed("boundary")

    async def test_own_request_rolls_back_its_own_alone(
        self, place: Place, make: Make, run: Run
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "block")
            await write(place.db, "lost")
            set_rollback_only()

        async with transactional():
            await run(make(place.db), body)
            assert told == rolled_back("block")
        assert told == rolled_back("block")

    async def test_joined_failure_inside_rolls_back_its_own_alone(
        self, place: Place, make: Make, run: Run
    ) -> None:
        told: list[str] = []

        @transactional
        async def culprit() -> None:
            raise Boom

        async def body() -> None:
            watch(told, "block")
            await write(place.db, "lost")
            with pytest.raises(Boom):
                await culprit()

        async with transactional():
            with pytest.raises(UnexpectedRollbackError):
                await run(make(place.db), body)
            assert told == rolled_back("block")
        assert told == rolled_back("block")


class TestAroundABlock:
    async def test_hooks_of_the_boundary_wait_for_the_boundary(self, place: Place) -> None:
        """A block that commits what it began itself settles nothing but its own."""
        told: list[str] = []
        async with transactional():
            watch(told, "before")
            async with atomic(place.db):
                watch(told, "block")
                await write(place.db, "a")
            watch(told, "between")
            assert told == committed("block")
            told.clear()
            async with atomic(place.db):
                await write(place.db, "b")
            assert told == []
        assert told == committed("before", "between")

    @pytest.mark.parametrize("fails", [False, True])
    async def test_append_ends_what_the_boundary_began_and_its_hooks_with_it(
        self, place: Place, fails: bool
    ) -> None:
        """In the order of registration, those before the commit as well."""
        told: list[str] = []

        async def body() -> None:
            async with atomic(place.db, current_transaction="append"):
                watch(told, "block")
                await write(place.db, "block")
                if fails:
                    raise Boom

        async with transactional():
            await write(place.db, "boundary")
            watch(told, "boundary")
            if fails:
                with pytest.raises(Boom):
                    await body()
            else:
                await body()
            names = ("boundary", "block")
            assert told == (rolled_back(*names) if fails else committed(*names))
        assert len(told) == len(set(told)), "each ran once"
        assert await place.texts() == ([] if fails else ["boundary", "block"])

    @pytest.mark.parametrize("opened", [False, True])
    async def test_dry_run_tells_the_blocks_hooks_of_a_rollback(
        self, place: Place, opened: bool
    ) -> None:
        """The boundary asked before: what a block in it does is never durable."""
        told: list[str] = []
        async with transactional():
            if opened:
                await write(place.db, "never")
            set_rollback_only("dry run")
            async with atomic(place.db, current_transaction="savepoint" if opened else None):
                watch(told, "block")
                await write(place.db, "never")
            assert told == ([] if opened else rolled_back("block"))
        assert told == rolled_back("block")


async def test_block_in_a_hook_belongs_to_the_unit_that_commits(place: Place) -> None:
    """Scenario: a before_commit hook of a block enters a savepoint that registers hooks.
    Outcome: they run with the block."""
    told: list[str] = []

    async def hook() -> None:
        async with atomic(place.db):
            after_commit(lambda: told.append("of the savepoint"))
            await write(place.db, "b")

    async with transactional():
        async with atomic(place.db):
            await write(place.db, "a")
            before_commit(hook)
            after_commit(lambda: told.append("of the block"))
        assert told == ["of the block", "of the savepoint"]
    assert await place.texts() == ["a", "b"]
