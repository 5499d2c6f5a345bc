"""Past ``timeout_s`` nothing is committed any more, by whatever end. On both backends.

The body did not notice: it swallowed the cancellation, or blocked the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_timeouts import ENOUGH_S, for_ever
from tests.conftest import Place
from tests.notes import write
from tests.told import rolled_back, watch
from tests.ways import COMMITS, UNITS, End, Unit, each
from txkit import (
    TransactionTimeoutError,
    atomic,
    new_context,
    transactional,
)

pytestmark = pytest.mark.usefixtures("connected")


async def pass_the_limit(how: str) -> None:
    if how == "blocked":
        time.sleep(1.2 * ENOUGH_S)
    else:
        with contextlib.suppress(asyncio.CancelledError):
            await for_ever()


LATE = pytest.mark.parametrize("how", ["swallowed", "blocked"])


@LATE
@each("unit", UNITS)
async def test_no_way_to_commit_is_left(place: Place, unit: Unit, how: str) -> None:
    told: list[str] = []
    with pytest.raises(TransactionTimeoutError):
        async with transactional(timeout_s=ENOUGH_S), unit(place.db):
            await write(place.db, "lost")
            watch(told, "unit")
            await pass_the_limit(how)
    assert "unit: after commit" not in told
    assert told[-2:] == rolled_back("unit")
    assert await place.texts() == []


@LATE
@each("commit", COMMITS)
@BOTH_FACES
async def test_refused_by_hand_it_sends_nothing_and_the_unit_is_over(
    place: Place, run: Run, commit: End, how: str
) -> None:
    """Also if the refusal is swallowed."""
    refused: list[BaseException] = []

    async def body() -> None:
        await write(place.db, "lost")
        await pass_the_limit(how)
        with pytest.raises(TransactionTimeoutError) as caught:
            await commit(place.db)
        refused.append(caught.value)
        assert await place.texts() == []

    with pytest.raises(TransactionTimeoutError):
        await run(new_context(timeout_s=ENOUGH_S), body)
    assert len(refused) == 1
    assert await place.texts() == []


@LATE
async def test_block_begun_past_it_is_refused(place: Place, how: str) -> None:
    with pytest.raises(TransactionTimeoutError):
        async with transactional(timeout_s=ENOUGH_S):
            await pass_the_limit(how)
            async with atomic(place.db):
                await write(place.db, "lost")
    assert await place.texts() == []
