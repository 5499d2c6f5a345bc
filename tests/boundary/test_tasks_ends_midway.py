"""A boundary that ends while another task's statement is on its way: nothing of it stays.

Scenario: the driver's own steps (a cursor, the statement, its end) take turns of the event
loop, and the boundary ends at each of them in turn.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Place
from tests.notes import count, write
from txkit import ConcurrentSessionUseError, transactional


@pytest.mark.parametrize("turns", range(1, 13))
async def test_statement_on_its_way_stays_with_its_unit(place: Place, turns: int) -> None:
    """Outcome: all that was written is there, or nothing."""
    late: list[asyncio.Task[None]] = []

    @transactional
    async def unit() -> None:
        await write(place.db, "unit")
        late.append(asyncio.create_task(transactional(write)(place.db, "late")))
        for _ in range(turns):
            await asyncio.sleep(0)

    try:
        await unit()
    except ConcurrentSessionUseError:
        expected = []
    else:
        expected = ["unit", "late"]
    await asyncio.gather(*late, return_exceptions=True)
    assert await place.texts() == expected
    assert await transactional(count)(place.db) == len(expected)
