"""Hooks of what is part of another unit: handed over on release, settled on rollback.

Atomic blocks and nested calls that are savepoints, and the user's own
``begin_nested()``, in each other. On both backends. What only the user's can do
is in ``test_hooks_begin_nested``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.boundary import faces
from tests.boundary.faces import Body
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from txkit import (
    Database,
    UnexpectedRollbackError,
    atomic,
    atomic_db_session,
    db_session,
    set_rollback_only,
    transactional,
)

Make = Callable[[Database], Any]
Outer = Callable[[Database], AbstractAsyncContextManager[object]]
Inner = Callable[[Database, Body], Awaitable[object]]


@asynccontextmanager
async def users_savepoint(db: Database) -> AsyncIterator[None]:
    async with (await db_session(db)).begin_nested():
        yield


@asynccontextmanager
async def a_boundary(db: Database) -> AsyncIterator[None]:
    async with transactional():
        await write(db, "around")
        yield


def in_a_boundary(make: Make) -> Outer:
    @asynccontextmanager
    async def enter(db: Database) -> AsyncIterator[None]:
        async with a_boundary(db), make(db):
            yield

    return enter


def as_function(make: Make) -> Inner:
    return lambda db, body: faces.as_function(make(db), body)


def as_block(make: Make) -> Inner:
    return lambda db, body: faces.as_block(make(db), body)


def savepoint(db: Database) -> Any:
    return atomic(db, current_transaction="savepoint")


def bare(_: Database) -> Any:
    return atomic()


def nested(_: Database) -> Any:
    return transactional(propagation="nested")


BLOCK = in_a_boundary(lambda db: atomic(db, current_transaction="append"))
IN_SAVEPOINT = in_a_boundary(savepoint)
IN_NESTED = in_a_boundary(nested)
IN_USERS = in_a_boundary(users_savepoint)
CASES = [
    pytest.param(a_boundary, as_function(savepoint), id="savepoint function in boundary"),
    pytest.param(a_boundary, as_function(nested), id="nested function in boundary"),
    pytest.param(a_boundary, as_block(nested), id="nested in boundary"),
    pytest.param(BLOCK, as_function(atomic), id="block function in block"),
    pytest.param(BLOCK, as_block(bare), id="bare block in block"),
    pytest.param(BLOCK, as_block(atomic_db_session), id="seed's block in block"),
    pytest.param(IN_SAVEPOINT, as_block(atomic), id="block in savepoint"),
    pytest.param(IN_NESTED, as_block(atomic), id="block in nested"),
    pytest.param(IN_USERS, as_block(savepoint), id="savepoint in user's"),
    pytest.param(a_boundary, as_block(users_savepoint), id="user's in boundary"),
    pytest.param(BLOCK, as_block(users_savepoint), id="user's in block"),
    pytest.param(IN_NESTED, as_block(users_savepoint), id="user's in nested"),
    pytest.param(IN_USERS, as_block(users_savepoint), id="user's in user's"),
]
every_part = pytest.mark.parametrize(("outer", "inner"), CASES)


@every_part
class TestPart:
    async def test_released_waits_for_what_is_around_it_in_order_of_registration(
        self, place: Place, outer: Outer, inner: Inner
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "inside")
            await write(place.db, "inside")
            watch(told, "inside too")

        async with outer(place.db):
            watch(told, "before")
            await inner(place.db, body)
            watch(told, "after")
            assert told == []
        assert told == committed("before", "inside", "inside too", "after")
        assert await place.texts() == ["around", "inside"]

    async def test_rolled_back_runs_after_rollback_at_once_and_nothing_later(
        self, place: Place, outer: Outer, inner: Inner
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "inside")
            await write(place.db, "lost")
            raise Boom

        async with outer(place.db):
            watch(told, "around")
            with pytest.raises(Boom) as caught:
                await inner(place.db, body)
            assert told == rolled_back("inside")
            assert not hasattr(caught.value, "__notes__")
            await write(place.db, "kept")
            told.clear()
        assert told == committed("around")
        assert await place.texts() == ["around", "kept"]

    async def test_failure_around_it_rolls_back_what_was_released(
        self, place: Place, outer: Outer, inner: Inner
    ) -> None:
        told: list[str] = []

        async def body() -> None:
            watch(told, "inside")
            await write(place.db, "lost")

        with pytest.raises(Boom):
            async with outer(place.db):
                watch(told, "around")
                await inner(place.db, body)
                raise Boom
        assert told == rolled_back("around", "inside")
        assert await place.texts() == []

    async def test_two_deep_the_middle_takes_the_inner_along(
        self, place: Place, outer: Outer, inner: Inner
    ) -> None:
        told: list[str] = []

        async def innermost() -> None:
            watch(told, "innermost")
            await write(place.db, "lost")

        async def middle() -> None:
            watch(told, "middle")
            await write(place.db, "lost")
            async with users_savepoint(place.db):
                await innermost()
            assert told == []
            raise Boom

        async with outer(place.db):
            with pytest.raises(Boom):
                await inner(place.db, middle)
            assert told == rolled_back("middle", "innermost")
        assert told == rolled_back("middle", "innermost")

    async def test_joined_failure_that_is_swallowed_inside_settles_the_part(
        self, place: Place, outer: Outer, inner: Inner
    ) -> None:
        told: list[str] = []

        @transactional
        async def culprit() -> None:
            raise Boom

        async def body() -> None:
            watch(told, "inside")
            await write(place.db, "lost")
            with pytest.raises(Boom):
                await culprit()

        async with outer(place.db):
            watch(told, "around")
            with pytest.raises(UnexpectedRollbackError):
                await inner(place.db, body)
            assert told == rolled_back("inside")
            told.clear()
        assert told == committed("around")


OWN_UNITS = [case for case in CASES if not str(case.id).startswith("user's")]


@pytest.mark.parametrize(("outer", "inner"), OWN_UNITS)
async def test_own_request_settles_the_part_alone(place: Place, outer: Outer, inner: Inner) -> None:
    told: list[str] = []

    async def body() -> None:
        watch(told, "inside")
        await write(place.db, "lost")
        set_rollback_only()

    async with outer(place.db):
        watch(told, "around")
        await inner(place.db, body)
        assert told == rolled_back("inside")
        told.clear()
    assert told == committed("around")
    assert await place.texts() == ["around"]
