"""Cancel a unit at its 1st, 2nd, ... n-th suspension, until it completes uncancelled.

Every run is judged by itself (``judging``); all complaints of all points are
raised together, each with what was going on at its point.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

from tests.cancellation import judging
from tests.cancellation.stage import Scenario, Stage
from tests.cancellation.steps import Run, counting, start
from tests.conftest import PostgresJudge
from txkit import Database
from txkit._core.place import current

Way = Callable[[Run, Awaitable[object]], Coroutine[Any, Any, object]]
_MOST = 400


async def native(run: Run, unit: Awaitable[object]) -> object:
    """``task.cancel()``."""
    task = asyncio.current_task()
    assert task is not None
    run.cancel = task.cancel
    return await unit


async def again(run: Run, unit: Awaitable[object]) -> object:
    """The same once more at every later suspension."""
    run.again = True
    return await native(run, unit)


async def scope(run: Run, unit: Awaitable[object]) -> object:
    """A scope of anyio's, which cancels at every later await."""
    with anyio.CancelScope() as cancel_scope:
        run.cancel = cancel_scope.cancel
        return await unit
    raise asyncio.CancelledError


async def timeout(run: Run, unit: Awaitable[object]) -> object:
    """``asyncio.timeout``."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            run.cancel = lambda: limit.reschedule(loop.time())
            return await unit
    except TimeoutError:
        raise asyncio.CancelledError from None


class Harness:
    """A scenario on its Databases, run in one way."""

    def __init__(
        self, scenario: Scenario, way: Way, dbs: list[Database], judges: list[PostgresJudge]
    ) -> None:
        self.scenario = scenario
        self.way = way
        self.dbs = dbs
        self.judges = judges
        self.whole: judging.Rows = Counter()
        self.calm = 0
        self.alive = [0] * len(dbs)

    async def exhaust(self, *, eager: bool) -> Counter[str]:
        """Give how many points there were of each label."""
        points: Counter[str] = Counter()
        wrong = [f"uncancelled: {one}" for one in await self._first(eager=eager)]
        for point in range(1, _MOST):
            run = Run(point)
            complaints = await self._run(run, eager=eager)
            label = (
                "completed" if run.path_then is None else " > ".join(run.path_then) or "elsewhere"
            )
            wrong += [f"{point} ({label}): {one}" for one in complaints]
            points[label] += run.was_struck
            if run.suspensions < point:
                break
        else:
            wrong.append(f"it never completed in {_MOST} runs")
        assert not wrong, "\n".join(wrong)
        return +points

    async def _first(self, *, eager: bool) -> list[str]:
        run = Run(0)
        await self._prepare(eager=eager)
        stage = await self._perform(run, eager=eager)
        self.whole, self.calm = await judging.taken_rows(self.judges), run.wakes
        wrong = [] if set(self.whole) == set(self.scenario.parts) else [f"rows: {self.whole}"]
        return wrong + list(judging.wrong_hooks(stage, self.whole))

    async def _run(self, run: Run, *, eager: bool) -> list[str]:
        await self._prepare(eager=eager)
        stage = await self._perform(run, eager=eager)
        wrong = list(judging.wrong_end(run, self.scenario, self.left))
        if self.place is not None:
            wrong.append("its context is left")
        wrong += judging.wrong_wakes(run, self.calm)
        for db in self.dbs:
            out = (await db.engine()).pool.checkedout()  # type: ignore[attr-defined]
            if out:
                wrong.append(f"{out} connections of {db.name} are checked out")
        wrong += await judging.left_tasks(run)
        wrong += await self._at_rest()
        rows = await judging.taken_rows(self.judges)
        parts = self.scenario.parts
        expected = self.scenario.committed(run.commits_then) if run.was_struck else parts
        wrong += judging.wrong_rows(rows, self.whole, expected)
        wrong += judging.wrong_hooks(stage, rows)
        return wrong

    async def _perform(self, run: Run, *, eager: bool) -> Stage:
        """Run the unit to its end."""
        stage = Stage(run, *self.dbs)
        with counting(eager=eager):
            await asyncio.wait({start(run, self._call(run, stage))})
            for step in stage.afterwards:
                waited_for = step()
                if waited_for is not None:
                    await waited_for
        assert run.unit is not None
        if run.unit.cancelled():
            self.left: object = asyncio.CancelledError
        elif (error := run.unit.exception()) is not None:
            self.left = type(error)
        else:
            self.left = run.unit.result()
        return stage

    async def _call(self, run: Run, stage: Stage) -> object:
        try:
            return await self.way(run, self.scenario.unit(stage))
        finally:
            self.place = current()

    async def _at_rest(self) -> list[str]:
        self.alive = []
        wrong: list[str] = []
        for db, judge in zip(self.dbs, self.judges, strict=True):
            alive, complaints = await judging.at_rest(db, judge)
            self.alive.append(alive)
            wrong += complaints
        return wrong

    async def _prepare(self, *, eager: bool) -> None:
        """Let each run suspend where the one before it did: on connections that know its statements.

        A cold scenario begins with none.
        """
        if self.scenario.is_cold:
            for db in self.dbs:
                await (await db.engine()).dispose()
        elif min(self.alive) < self.scenario.connections:
            await self._perform(Run(0), eager=eager)
            await judging.taken_rows(self.judges)
