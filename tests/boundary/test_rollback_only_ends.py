"""How a joined failure that was swallowed ends: any failure counts, a rollback by hand mends. On both backends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from tests.boundary.mistakes import swallowed
from tests.conftest import Place
from tests.notes import Boom, write
from tests.told import committed, rolled_back, watch
from txkit import (
    UnexpectedRollbackError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)


class Other(Exception):
    """What a caller makes of Boom."""


async def fail() -> None:
    raise Boom("no")


culprit = transactional(name="culprit")(fail)


class TestAnyFailure:
    @pytest.mark.parametrize("swallow", ["wait_for", "timeout", "cancel"])
    async def test_cancellation_that_was_swallowed_dooms(self, place: Place, swallow: str) -> None:
        @transactional(name="service")
        async def service() -> None:
            await write(place.db, "half")
            inside.set()
            await asyncio.Event().wait()

        async def strike() -> None:
            await inside.wait()
            limit.reschedule(0)

        inside = asyncio.Event()
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                if swallow == "cancel":
                    task = asyncio.ensure_future(service())
                    await inside.wait()
                    task.cancel()
                    with swallowed(asyncio.CancelledError):
                        await task
                elif swallow == "wait_for":
                    with swallowed(TimeoutError):
                        await asyncio.wait_for(service(), 0.2)
                else:
                    with swallowed(TimeoutError):
                        async with asyncio.timeout(None) as limit:
                            striking = asyncio.ensure_future(strike())
                            await service()
                    await striking
        assert caught.value.culprit == "service"
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert await place.texts() == []

    async def test_one_of_a_gather_dooms(self, place: Place) -> None:
        with pytest.raises(UnexpectedRollbackError, match="culprit"):
            async with transactional():
                await write(place.db, "lost")
                await asyncio.gather(culprit(), return_exceptions=True)
        assert await place.texts() == []

    @pytest.mark.parametrize(
        "rules",
        [{"no_rollback_for": Boom}, {"outcome": lambda _, error: isinstance(error, Boom)}],
        ids=["no_rollback_for", "outcome"],
    )
    async def test_what_its_own_rules_allow_dooms_nothing(
        self, place: Place, rules: dict[str, Any]
    ) -> None:
        async with transactional():
            with swallowed(Boom):
                async with transactional(**rules):
                    await write(place.db, "kept")
                    raise Boom
            await write(place.db, "kept too")
        assert await place.texts() == ["kept", "kept too"]


class TestReturnsAllTheSame:
    """The error replaces only an end that would have committed."""

    async def test_where_the_unit_asked_for_the_rollback(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "lost")
            with swallowed(Boom):
                await culprit()
            set_rollback_only()
        assert await place.texts() == []

    async def test_where_the_result_says_failure(self, place: Place) -> None:
        @transactional
        async def handler() -> JSONResponse:
            await write(place.db, "lost")
            with swallowed(Boom):
                await culprit()
            return JSONResponse({}, 409)

        assert (await handler()).status_code == 409
        assert await place.texts() == []

    async def test_where_another_exception_leaves(self, place: Place) -> None:
        with pytest.raises(Other) as caught:
            async with transactional():
                await write(place.db, "lost")
                with swallowed(Boom):
                    await culprit()
                raise Other
        assert not hasattr(caught.value, "__notes__")
        assert await place.texts() == []


async def _function(place: Place) -> None:
    await rollback_db_session(place.db)


async def _session(place: Place) -> None:
    await (await db_session(place.db)).rollback()


async def _close(place: Place) -> None:
    await close_db_session(place.db)


async def _session_close(place: Place) -> None:
    await (await db_session(place.db)).close()


async def _session_reset(place: Place) -> None:
    await (await db_session(place.db)).reset()


async def _block(place: Place) -> None:
    async with atomic(place.db, current_transaction="rollback"):
        pass


async def _append(place: Place) -> None:
    with pytest.raises(UnexpectedRollbackError):
        async with atomic(place.db, current_transaction="append"):
            await write(place.db, "refused")


ROLLBACKS = [_function, _session, _close, _session_close, _session_reset, _block, _append]


@pytest.mark.parametrize("roll_back", ROLLBACKS)
async def test_rollback_by_hand_mends(
    place: Place, roll_back: Callable[[Place], Awaitable[None]]
) -> None:
    told: list[str] = []
    async with transactional():
        await write(place.db, "lost")
        watch(told, "lost")
        with swallowed(Boom):
            await culprit()
        with pytest.raises(UnexpectedRollbackError):
            await commit_db_session(place.db)
        await roll_back(place)
        await write(place.db, "kept")
        watch(told, "kept")
    assert await place.texts() == ["kept"]
    assert told == [*rolled_back("lost"), *committed("kept")]
