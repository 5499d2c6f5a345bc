"""Inside ``nested``: what may not be ended by hand, and how it fits into other scopes. On both backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_nested import NESTED, OPEN_BEFORE, begin
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    AtomicControlError,
    UnexpectedRollbackError,
    atomic,
    atomic_db_session,
    close_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)


async def _begin_block(place: Place) -> None:
    async with (await db_session(place.db)).begin():
        raise AssertionError


async def _mode(place: Place, mode: str) -> None:
    async with atomic_db_session(place.db, mode):
        raise AssertionError


def _session(method: str) -> Callable[[Place], Awaitable[None]]:
    async def call(place: Place) -> None:
        await getattr(await db_session(place.db), method)()

    return call


CONTROLS: dict[str, Callable[[Place], Awaitable[Any]]] = {
    "session.commit()": _session("commit"),
    "session.rollback()": _session("rollback"),
    "session.close()": _session("close"),
    "session.reset()": _session("reset"),
    "session.invalidate()": _session("invalidate"),
    "session.begin()": _begin_block,
    "commit_db_session()": lambda place: commit_db_session(place.db),
    "rollback_db_session()": lambda place: rollback_db_session(place.db),
    "close_db_session()": lambda place: close_db_session(place.db),
    "current_transaction='commit'": lambda place: _mode(place, "commit"),
    "current_transaction='rollback'": lambda place: _mode(place, "rollback"),
    "current_transaction='append'": lambda place: _mode(place, "append"),
    "current_transaction='raise'": lambda place: _mode(place, "raise"),
}


@BOTH_FACES
@OPEN_BEFORE
@pytest.mark.parametrize("control", CONTROLS)
async def test_control_is_refused_and_the_block_goes_on(
    place: Place, run: Run, opened: bool, control: str
) -> None:
    async def body() -> None:
        session = await db_session(place.db)
        if opened:
            await write(place.db, "a")
        with pytest.raises(AtomicControlError) as caught:
            await CONTROLS[control](place)
        assert caught.value.operation == control
        assert caught.value.function == "close_books"
        assert await db_session(place.db) is session
        await write(place.db, "b")
        with pytest.raises(AtomicControlError):
            await CONTROLS[control](place)

    async with transactional():
        kept = await begin(place, opened)
        await run(transactional(propagation="nested", name="close_books"), body)
        assert await place.texts() == []
    assert await place.texts() == [*kept, *["a"] * opened, "b"]


@OPEN_BEFORE
async def test_control_is_given_back_at_its_end(place: Place, opened: bool) -> None:
    async with transactional():
        kept = await begin(place, opened)
        async with NESTED:
            await write(place.db, "a")
        session = await db_session(place.db)
        await session.commit()
        assert await place.texts() == [*kept, "a"]
        with pytest.raises(Boom):
            async with NESTED:
                await write(place.db, "lost")
                raise Boom
        await rollback_db_session(place.db)
        await write(place.db, "b")
    assert await place.texts() == [*kept, "a", "b"]


UNITS: dict[str, Callable[[Place], Any]] = {
    "nested": lambda _: NESTED,
    "atomic": lambda place: atomic(place.db),
    "bare atomic": lambda _: atomic,
    "savepoint": lambda place: atomic(place.db, current_transaction="savepoint"),
    "joined": lambda _: transactional,
}


PAIRS = [
    (outer, inner)
    for outer in UNITS
    for inner in UNITS
    if inner != "joined" and "nested" in {outer, inner}
]


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
@pytest.mark.parametrize("how", ["exception", "own request", "swallowed failure"])
async def test_inner_loss_is_the_inners_alone(
    place: Place, outer: str, inner: str, how: str
) -> None:
    """Nested in nested, atomic in nested, nested in atomic: each a savepoint of the one around."""

    @transactional
    async def culprit() -> None:
        raise Boom

    async def loses() -> None:
        async with UNITS[inner](place):
            await write(place.db, "lost")
            if how == "exception":
                raise Boom
            if how == "own request":
                set_rollback_only()
            else:
                with pytest.raises(Boom):
                    await culprit()

    async with transactional():
        async with UNITS[outer](place):
            await write(place.db, "a")
            if how == "own request":
                await loses()
            else:
                with pytest.raises(Boom if how == "exception" else UnexpectedRollbackError):
                    await loses()
            async with UNITS[inner](place):
                await write(place.db, "b")
            assert await place.texts() == []
            await write(place.db, "c")
    assert await place.texts() == ["a", "b", "c"]


@pytest.mark.parametrize(("outer", "inner"), [pair for pair in PAIRS if pair[0] != "joined"])
async def test_outer_loss_takes_the_inner_along(place: Place, outer: str, inner: str) -> None:
    async with transactional():
        with pytest.raises(Boom):
            async with UNITS[outer](place):
                async with UNITS[inner](place):
                    await write(place.db, "lost")
                await write(place.db, "lost too")
                raise Boom
        await write(place.db, "kept")
    assert await place.texts() == ["kept"]


@OPEN_BEFORE
async def test_three_levels_each_lose_their_own(place: Place, opened: bool) -> None:
    async with transactional():
        kept = await begin(place, opened)
        async with NESTED:
            await write(place.db, "1")
            with pytest.raises(Boom):
                async with NESTED:
                    await write(place.db, "lost")
                    async with NESTED:
                        await write(place.db, "lost too")
                    raise Boom
            async with NESTED:
                async with NESTED:
                    await write(place.db, "2")
                with pytest.raises(Boom):
                    async with NESTED:
                        await write(place.db, "lost")
                        raise Boom
            await write(place.db, "3")
    assert await place.texts() == [*kept, "1", "2", "3"]


@OPEN_BEFORE
async def test_savepoint_of_the_users_inside_is_his(place: Place, opened: bool) -> None:
    async with transactional():
        kept = await begin(place, opened)
        async with NESTED:
            session = await db_session(place.db)
            async with session.begin_nested():
                await write(place.db, "a")
            with pytest.raises(Boom):
                async with session.begin_nested():
                    await write(place.db, "lost")
                    raise Boom
    assert await place.texts() == [*kept, "a"]


async def test_one_inside_a_savepoint_of_the_users_is_lost_with_it(place: Place) -> None:
    async with transactional():
        session = await db_session(place.db)
        await write(place.db, "a")
        with pytest.raises(Boom):
            async with session.begin_nested():
                async with NESTED:
                    await write(place.db, "lost")
                raise Boom
        await write(place.db, "b")
    assert await place.texts() == ["a", "b"]
