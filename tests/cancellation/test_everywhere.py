"""Cancelled at every suspension in turn: rolled back before COMMIT is sent, finished from then on."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cancellation.harness import Harness, Way, again, native, scope, timeout
from tests.cancellation.labels import Telling, listen
from tests.cancellation.scenarios import MAIN
from tests.cancellation.scenarios_more import MORE
from tests.cancellation.stage import Scenario
from tests.conftest import PostgresJudge, new_postgres, opened

LOOPS: dict[str, dict[str, Any]] = {
    "debug": {"debug": True},  # twice as slow
    "plain": {},
    "uvloop": {"use_uvloop": True},
    "eager": {},
}
WAYS = [native, again, scope, timeout]
ALL = [(loop_kind, way) for loop_kind in ("debug", "uvloop", "eager") for way in WAYS]
SOME = [("plain", native), ("plain", scope), ("uvloop", again), ("eager", native), ("eager", scope)]
"""Every way at least once, where all of them on every loop would be too many."""

CASES = [
    pytest.param(loop_kind, scenario, way, id=f"{loop_kind}-{scenario}-{way.__name__}")
    for scenarios, how in ((MAIN, ALL), (MORE, SOME))
    for loop_kind, way in how
    for scenario in scenarios
    if loop_kind != "eager" or sys.version_info >= (3, 12)
]


@pytest.fixture
def anyio_backend(loop_kind: str) -> tuple[str, dict[str, Any]]:
    return "asyncio", LOOPS[loop_kind]


@pytest.fixture
async def harness(
    scenario: Scenario, way: Way, pg: PostgresJudge, request: pytest.FixtureRequest
) -> AsyncIterator[Harness]:
    connect_args = {"connection_class": Telling, "ssl": False}
    async with contextlib.AsyncExitStack() as stack:
        dbs, judges = [], [pg]
        if scenario.databases > 1:
            judges += [await stack.enter_async_context(_another(request))]
        for number, judge in enumerate(judges):
            for statement in scenario.set_up:
                await judge.fetch(statement)
            options = {"name": f"db{number}", "pool_size": scenario.pool_size, "max_overflow": 0}
            db = await stack.enter_async_context(
                _opened(judge, connect_args=connect_args, **options)
            )
            await listen(db)
            dbs.append(db)
        yield Harness(scenario, way, dbs, judges)


_opened = contextlib.asynccontextmanager(opened)


def _another(request: pytest.FixtureRequest) -> Any:
    return contextlib.asynccontextmanager(new_postgres)(request.getfixturevalue("server"))


def report(scenario: Scenario, points: Counter[str]) -> None:
    lines = [f"{number:5} {label}" for label, number in points.most_common()]
    print(f"{scenario}: {points.total()} points", *lines, sep="\n")
    reached = {one for label in points for one in label.split(" > ")}
    assert reached >= set(scenario.inside), f"never cancelled in {set(scenario.inside) - reached}"


@pytest.mark.parametrize(("loop_kind", "scenario", "way"), CASES)
async def test_unit(harness: Harness, loop_kind: str) -> None:
    report(harness.scenario, await harness.exhaust(eager=loop_kind == "eager"))
