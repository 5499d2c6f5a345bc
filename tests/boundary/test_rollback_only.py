"""A joined failure that its caller swallows dooms the unit that it joined. On both backends.

That is the innermost atomic block or savepoint, else the context. Its next statement
and its end raise from the original, and name the culprit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.mistakes import swallowed
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import rolled_back, watch
from tests.wire import Watched, watched
from txkit import (
    UnexpectedRollbackError,
    db_session,
    set_rollback_only,
    transactional,
)


@pytest.fixture
async def seen(place: Place) -> AsyncIterator[Watched]:
    async for one in watched(place):
        yield one


class Other(Exception):
    """What a caller makes of Boom."""


async def fail() -> None:
    raise Boom("no")


culprit = transactional(name="culprit")(fail)


@BOTH_FACES
@pytest.mark.parametrize("how", ["required", "mandatory", "supports"])
async def test_end_raises_from_the_original_and_names_the_culprit(
    place: Place, run: Run, how: str
) -> None:
    told: list[str] = []

    async def service() -> None:
        await write(place.db, "lost too")
        raise Boom("no")

    async def unit() -> None:
        nonlocal first
        watch(told, "unit")
        await write(place.db, "lost")
        with swallowed(Boom) as first:
            await run(transactional(name="service", propagation=how), service)

    first: Any = None
    with pytest.raises(UnexpectedRollbackError, match="'service' failed in its") as caught:
        await run(transactional(name="unit"), unit)
    error = caught.value
    assert (error.function, error.culprit, error.reason) == ("unit", "service", "Boom: no")
    assert error.__cause__ is first.error
    assert await place.texts() == []
    assert told == rolled_back("unit")


async def _add_and_flush(session: AsyncSession) -> None:
    session.add(Note(text="lost"))
    await session.flush()


NEXT: dict[str, Callable[[AsyncSession], Awaitable[Any]]] = {
    "execute": lambda session: session.execute(text("SELECT 1")),
    "stream": lambda session: session.stream(text("SELECT 1")),
    "get": lambda session: session.get(Note, 1),
    "flush": _add_and_flush,
    "connection": lambda session: session.connection(),
    "run_sync": lambda session: session.run_sync(lambda sync: sync.execute(text("SELECT 1"))),
    "commit": lambda session: session.commit(),
}


@pytest.mark.parametrize("following", NEXT.values(), ids=list(NEXT))
@pytest.mark.parametrize("used", [False, True])
async def test_next_statement_is_refused_before_anything_is_sent(
    seen: Watched, following: Callable[[AsyncSession], Awaitable[object]], used: bool
) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with transactional(name="unit"):
            session = await db_session(seen.db)
            if used:
                await write(seen.db, "lost")
            with swallowed(Boom) as first:
                await culprit()
            before = seen.sent[:]
            with pytest.raises(UnexpectedRollbackError, match="can only be rolled") as refused:
                await following(session)
            assert (refused.value.function, refused.value.culprit) == ("unit", "culprit")
            assert refused.value.__cause__ is first.error
            assert seen.sent == before
    assert await seen.texts() == []


class TestNames:
    """Three levels of joined calls: the one that failed first is the culprit."""

    @pytest.mark.parametrize("swallower", ["middle", "unit"])
    @pytest.mark.parametrize("changed", [False, True])
    async def test_first_failure_however_far_it_went(
        self, place: Place, swallower: str, changed: bool
    ) -> None:
        @transactional(name="middle")
        async def middle() -> None:
            nonlocal first
            try:
                await culprit()
            except Boom as error:
                first = error
                if swallower != "middle":
                    raise (Other() if changed else error) from error

        @transactional(name="unit")
        async def unit() -> None:
            await write(place.db, "lost")
            try:
                await middle()
            except (Boom, Other):
                assert swallower == "unit"

        first: BaseException | None = None
        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit()
        assert (caught.value.function, caught.value.culprit) == ("unit", "culprit")
        assert caught.value.__cause__ is first
        assert await place.texts() == []

    async def test_refusal_that_was_swallowed_changes_nothing(self, place: Place) -> None:
        @transactional(name="innocent")
        async def innocent() -> None:
            await write(place.db, "refused")

        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                await write(place.db, "lost")
                with swallowed(Boom) as first:
                    await culprit()
                with swallowed(UnexpectedRollbackError):
                    await innocent()
        assert caught.value.culprit == "culprit"
        assert caught.value.__cause__ is first.error

    async def test_request_of_a_joined_call_is_named_with_its_reason(self, place: Place) -> None:
        @transactional(name="service")
        async def service() -> None:
            set_rollback_only("no stock")

        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(name="unit"):
                await write(place.db, "lost")
                await service()
        assert (caught.value.culprit, caught.value.reason) == ("service", "no stock")
        assert caught.value.__cause__ is None
        assert await place.texts() == []
