"""Hooks run one after the other, in the order of registration. On both backends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.boundary.test_hooks import Face, both_faces
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import after_commit, after_completion, after_rollback, before_commit, transactional


@both_faces
async def test_registration_decides_across_kinds_and_functions(place: Place, face: Face) -> None:
    told: list[object] = []

    @transactional
    async def joined() -> None:
        after_completion(lambda outcome: told.append((3, outcome)))
        after_commit(lambda: told.append(4))

    async def body() -> None:
        after_completion(lambda outcome: told.append((1, outcome)))
        after_rollback(lambda: told.append("never"))
        after_commit(lambda: told.append(2), robust=True)
        before_commit(lambda: told.append("before"))
        await write(place.db, "kept")
        await joined()
        after_commit(lambda: told.append(5))
        before_commit(lambda: told.append("before too"))

    await face(body)
    assert told == ["before", "before too", (1, "committed"), 2, (3, "committed"), 4, 5]


async def test_hooks_after_a_rollback_run_in_the_order_of_registration(place: Place) -> None:
    told: list[object] = []
    with pytest.raises(Boom):
        async with transactional():
            after_completion(lambda outcome: told.append((1, outcome)))
            after_commit(lambda: told.append("never"))
            after_rollback(lambda: told.append(2))
            await write(place.db, "lost")
            after_completion(lambda outcome: told.append((3, outcome)))
            after_rollback(lambda: told.append(4))
            raise Boom
    assert told == [(1, "rolled_back"), 2, (3, "rolled_back"), 4]


async def test_one_ends_before_the_next_begins(place: Place) -> None:
    """Hooks run one after the other, also where they wait."""
    told: list[str] = []

    def slow(name: str) -> Callable[..., Awaitable[None]]:
        async def hook(*_: str) -> None:
            told.append(f"{name} begins")
            for _ in range(3):
                await asyncio.sleep(0)
            told.append(f"{name} ends")

        return hook

    async with transactional():
        before_commit(slow("before"))
        after_commit(slow("commit"))
        after_completion(slow("completion"))
        await write(place.db, "kept")
    names = ["before", "commit", "completion"]
    assert told == [f"{name} {what}" for name in names for what in ("begins", "ends")]


async def test_hook_registered_twice_runs_twice(place: Place) -> None:
    told: list[int] = []

    def hook() -> None:
        told.append(len(told))

    async with transactional():
        before_commit(hook)
        before_commit(hook)
        after_commit(hook)
        after_commit(hook)
        await write(place.db, "kept")
    assert told == [0, 1, 2, 3]
