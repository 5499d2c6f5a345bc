"""Compare txkit with hand-written SQLAlchemy: ``python -m tests.benchmarks``.

Starts a PostgreSQL of its own, measures for about a minute, prints what
came out as Markdown. ``--uvloop`` measures under uvloop as well, ``--write``
puts the tables into RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests import server as postgres
from tests.benchmarks.cases import (
    OPTIONS,
    SCHEMA,
    Subjects,
    by_hand,
    by_txkit,
    cases,
    driver_url,
    insert,
    joined_calls,
)
from tests.benchmarks.measure import TASKS, Load, Spread, load, time_calls, time_cases
from tests.benchmarks.roundtrips import counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_RESULTS = Path(__file__).with_name("RESULTS.md")
_DATABASE = "txkit_benchmarks"
_INTRODUCTION = """\
Made by `python -m tests.benchmarks --write`. Every comparison alternates both sides in small batches
and reports the median of the rounds' ratios, between its quartiles: below 1.00 txkit took less. The
row called noise compares hand-written code with itself.
"""


async def measure(server: postgres.Server, rounds: int) -> str:
    """Run everything in this event loop; give the tables."""
    await _create_database(server)
    here = server.url(_DATABASE)
    parts = []
    subjects = Subjects(here)
    try:
        parts.append(await _ratios(subjects, rounds))
        parts.append(await _calls(rounds))
        parts.append(await _load(subjects, max(2, rounds // 10)))
    finally:
        await subjects.close()
    parts.append(await _round_trips(here))
    return "\n".join(parts)


async def _ratios(subjects: Subjects, rounds: int) -> str:
    timings = await time_cases(cases(subjects), rounds)
    return _table(
        f"Time of one unit, as a ratio to hand-written code ({rounds} rounds)",
        ("unit", "wall", "quartiles", "aim", "client CPU", "quartiles", "txkit us", "by hand us"),
        (
            (
                timing.case.work,
                f"{timing.wall.middle:.3f}",
                _quartiles(timing.wall),
                "" if timing.case.aim is None else f"{timing.case.aim:.2f}",
                f"{timing.cpu.middle:.3f}",
                _quartiles(timing.cpu),
                f"{timing.txkit_us:.0f}",
                f"{timing.by_hand_us:.0f}",
            )
            for timing in timings
        ),
    )


async def _calls(rounds: int) -> str:
    overheads = [await time_calls(calls, rounds) for calls in joined_calls()]
    return _table(
        "A joined call, on top of a plain await (aim: 1.0 us)",
        ("call", "added us", "quartiles", "plain us"),
        (
            (
                one.work,
                f"{one.added_us.middle:.2f}",
                _quartiles(one.added_us),
                f"{one.plain_us:.2f}",
            )
            for one in overheads
        ),
    )


async def _load(subjects: Subjects, rounds: int) -> str:
    sides = [by_txkit(subjects.db, insert), by_hand(subjects.sessions, insert)]
    mine, other = await load(sides, rounds)

    def row(what: str, read: Callable[[Load], float], digits: int) -> tuple[str, ...]:
        ratio = Spread.of([read(a) / read(b) for a, b in zip(mine, other, strict=True)])
        sides = [Spread.of([read(burst) for burst in bursts]).middle for bursts in (mine, other)]
        values = (f"{value:.{digits}f}" for value in sides)
        return (what, *values, f"{ratio.middle:.3f}", _quartiles(ratio))

    return _table(
        f"{TASKS} tasks over a pool of {OPTIONS['pool_size']}, one INSERT each time"
        f" ({rounds} bursts; aim: p99/p50 no worse)",
        ("", "txkit", "by hand", "ratio", "quartiles"),
        [
            row("p50, ms", lambda burst: burst.p50_ms, 1),
            row("p99, ms", lambda burst: burst.p99_ms, 1),
            row("p99/p50", lambda burst: burst.fairness, 2),
            row("units per second", lambda burst: burst.per_s, 0),
        ],
    )


async def _round_trips(url: str) -> str:
    rows = []
    async with counting(url) as (proxied, counter):
        subjects = Subjects(proxied)
        try:
            for case in cases(subjects):
                mine = await counter.of(case.txkit)
                other = await counter.of(case.by_hand)
                rows.append((case.work, f"{mine:g}", f"{other:g}"))
        finally:
            await subjects.close()
    return _table("Round trips of one unit, counted by a proxy", ("unit", "txkit", "by hand"), rows)


async def _create_database(server: postgres.Server) -> None:
    await _send(
        server.admin_url,
        f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)",
        f"CREATE DATABASE {_DATABASE} TEMPLATE template0",
    )
    await _send(server.url(_DATABASE), SCHEMA, "INSERT INTO note (text) VALUES ('the first')")


async def _server_version(server: postgres.Server) -> str:
    return str(await _send(server.admin_url, "SHOW server_version"))


async def _send(url: str, *statements: str) -> object:
    """Send the statements, each in a transaction of its own; give the last one's value."""
    engine = create_async_engine(driver_url(url), isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


def _quartiles(spread: Spread) -> str:
    return f"{spread.low:.2f} to {spread.high:.2f}"


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join((f"### {title}\n", *_markdown([head, *rows]), ""))


def _markdown(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield (
                "|"
                + "|".join("-" * (w + 1) + ("-:"[min(p, 1)]) for p, w in enumerate(widths))
                + "|"
            )


def _machine(server_version: str) -> str:
    names = ("sqlalchemy", "asyncpg", "wrapt", "greenlet")
    return ", ".join(
        (
            _processor(),
            f"{os.cpu_count()} cores",
            platform.system(),
            f"{platform.python_implementation()} {platform.python_version()}",
            *(f"{name} {version(name)}" for name in names),
            f"PostgreSQL {server_version} on loopback, fsync off",
        )
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=150, help="rounds of each comparison")
    parser.add_argument("--uvloop", action="store_true", help="measure under uvloop as well")
    parser.add_argument("--write", action="store_true", help="store the tables in RESULTS.md")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    return options


def main() -> None:
    """Measure and report."""
    options = _options()
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if options.uvloop:
        uvloop = importlib.import_module("uvloop")  # in no extra: pip install uvloop
        loops[f"uvloop {version('uvloop')}"] = uvloop.new_event_loop
    server = postgres.start()
    try:
        parts = [
            "# What txkit costs beside hand-written SQLAlchemy\n",
            _INTRODUCTION,
            _machine(asyncio.run(_server_version(server))) + ".\n",
        ]
        for name, factory in loops.items():
            with asyncio.Runner(loop_factory=factory) as runner:
                parts.append(f"## Under {name}\n")
                parts.append(runner.run(measure(server, options.rounds)))
    finally:
        server.stop()
    report = "\n".join(parts)
    sys.stdout.write(report)
    if options.write:
        _RESULTS.write_text(report)


if __name__ == "__main__":
    main()
