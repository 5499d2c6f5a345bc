"""Measure in one interleaved run: what disturbs the machine disturbs both sides alike.

Each round runs a small batch of one side and then of the other, in alternating
order, and yields one ratio; the median of the rounds' ratios is reported, with
its quartiles. Absolute times are shown for orientation only.
"""

from __future__ import annotations

import asyncio
import gc
import time
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.benchmarks.cases import Calls, Case, Unit

TASKS = 100
_CALLS = 4000
_UNITS_OF_A_TASK = 20


class Spread(NamedTuple):
    """The median of the rounds, between its quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, _, high = quantiles(values, n=4)
        return cls(low, median(values), high)


class Timing(NamedTuple):
    """How a case went; ``cpu`` is the client's own CPU time as a ratio."""

    case: Case
    wall: Spread
    cpu: Spread
    txkit_us: float
    by_hand_us: float


class Overhead(NamedTuple):
    """Microseconds that a joined call adds to a plain await."""

    work: str
    added_us: Spread
    plain_us: float


class Load(NamedTuple):
    """One burst of tasks over a small pool."""

    p50_ms: float
    p99_ms: float
    per_s: float

    @property
    def fairness(self) -> float:
        return self.p99_ms / self.p50_ms


async def time_cases(cases: Sequence[Case], rounds: int) -> list[Timing]:
    """Time every case in every round."""
    seen: list[list[tuple[float, float, float, float]]] = [[] for _ in cases]
    for case in cases:
        await _batch(case.txkit, case.units)
        await _batch(case.by_hand, case.units)
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        for case, times in zip(cases, seen, strict=True):
            if number % 2:
                mine = await _batch(case.txkit, case.units)
                other = await _batch(case.by_hand, case.units)
            else:
                other = await _batch(case.by_hand, case.units)
                mine = await _batch(case.txkit, case.units)
            times.append((*mine, *other))
    return [
        Timing(
            case,
            Spread.of([mine / other for mine, _, other, _ in times]),
            Spread.of([mine / other for _, mine, _, other in times]),
            1e6 * median(time[0] for time in times),
            1e6 * median(time[2] for time in times),
        )
        for case, times in zip(cases, seen, strict=True)
    ]


async def time_calls(calls: Calls, rounds: int) -> Overhead:
    """Time a joined call against a plain await."""
    added, plain = [], []
    for number in range(rounds):
        pair = [calls.joined, calls.plain]
        times = [await _per_call(pair[place]) for place in (number % 2, 1 - number % 2)]
        joined_us, plain_us = times if number % 2 == 0 else reversed(times)
        added.append(joined_us - plain_us)
        plain.append(plain_us)
    return Overhead(calls.work, Spread.of(added), median(plain))


async def load(units: Sequence[Unit], rounds: int) -> list[list[Load]]:
    """Let 100 tasks want the pool at the same time, one side after the other."""
    seen: list[list[Load]] = [[] for _ in units]
    for number in range(-1, rounds):
        order = list(zip(units, seen, strict=True))
        for unit, bursts in order if number % 2 else reversed(order):
            burst = await _burst(unit)
            if number >= 0:  # the first one fills the pool
                bursts.append(burst)
    return seen


async def _batch(unit: Unit, count: int) -> tuple[float, float]:
    """Give the seconds of wall and CPU time of one unit."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        await unit()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


async def _per_call(many: Callable[[int], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await many(_CALLS)
    return 1e6 * (time.perf_counter() - start) / _CALLS


async def _burst(unit: Unit) -> Load:
    latencies: list[float] = []

    async def user() -> None:
        for _ in range(_UNITS_OF_A_TASK):
            start = time.perf_counter()
            await unit()
            latencies.append(1e3 * (time.perf_counter() - start))

    start = time.perf_counter()
    await asyncio.gather(*(user() for _ in range(TASKS)))
    seconds = time.perf_counter() - start
    cuts = quantiles(latencies, n=100, method="inclusive")
    return Load(cuts[49], cuts[98], len(latencies) / seconds)
