"""The verdict on a run: what the units said and were told against the rows that are there."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg

from tests.soak.bank import ACCOUNTS, BALANCE
from tests.soak.faults import Faults
from tests.soak.units import Book, Said, Unit


class Verdict:
    """What is wrong (nothing, it is hoped), and the figures."""

    def __init__(self, book: Book, faults: Faults) -> None:
        self._book = book
        self._faults = faults
        self.wrong = book.wrong
        self.there: set[int] = set()
        outside = [unit for unit in book.units if self._is_fair(unit)]
        self.failures = Counter(unit.error for unit in outside if unit.said is not Said.COMMITTED)
        self.fair = len(outside)
        self.good = self.fair - self.failures.total()

    @property
    def rate(self) -> float:
        """The share that succeeded of the units outside the windows that nobody cancelled."""
        return self.good / max(self.fair, 1)

    async def judge(self, connection: asyncpg.Connection[Any]) -> None:
        """Compare everything with what is committed."""
        journal = await _ids(connection, "journal")
        notices = await _ids(connection, "notice")
        self.there = journal | await _ids(connection, "audit")
        units = self._book.units
        for unit in units:
            self.wrong += [f"{reason}: {unit}" for reason in _lies(unit, unit.number in self.there)]
        strangers = (self.there | notices) - {unit.number for unit in units}
        self.wrong += [f"rows of nobody: {strangers}"] if strangers else []
        noticed = {unit.number for unit in units if unit.is_noticed}
        self.wrong += [f"notice lost: {number}" for number in noticed - notices]
        self.wrong += [f"notice of nothing: {number}" for number in notices - journal]
        await self._judge_balances(connection, journal)

    async def _judge_balances(self, connection: asyncpg.Connection[Any], journal: set[int]) -> None:
        """Whether each unit is there as a whole: the balances are what the journal makes them."""
        expected = dict.fromkeys(range(1, ACCOUNTS + 1), BALANCE)
        for unit in self._book.units:
            if unit.number in journal:
                for account, amount in unit.moves:
                    expected[account] += amount
        found = dict(await connection.fetch("SELECT id, balance FROM account"))
        different = {one for one in expected if found[one] != expected[one]}
        self.wrong += [f"balances without their transfers: {different}"] if different else []
        if sum(found.values()) != ACCOUNTS * BALANCE:
            self.wrong.append(f"the sum is {sum(found.values())}")

    def _is_fair(self, unit: Unit) -> bool:
        """Whether it was to succeed: no window lies over it, nobody cancelled or refused it."""
        place = bisect.bisect(self._faults.windows, (unit.ended,))  # the first that starts later
        in_window = place > 0 and self._faults.windows[place - 1][1] >= unit.started
        return not (in_window or unit.caller.was_asked or unit.said is Said.REFUSED)

    def figures(self) -> dict[str, object]:
        units, faults = self._book.units, self._faults
        said = Counter(unit.said for unit in units)
        unknown = [unit for unit in units if unit.said is Said.UNKNOWN]
        cancelled = [unit for unit in units if unit.said is Said.CANCELLED]
        return {
            "units": len(units),
            **{one.value: said[one] for one in Said if one is not Said.NOTHING},
            "unknown, and there": sum(unit.number in self.there for unit in unknown),
            "cancelled, and there": sum(unit.number in self.there for unit in cancelled),
            "cancellations": self._book.cancellations,
            "... with COMMIT in flight": self._book.cancelled_in_commit,
            "backends killed": faults.kills,
            "... in COMMIT": faults.kills_in_commit,
            "restarts": faults.restarts,
            "sums looked at": faults.sums,
            "outcomes told to hooks": sum(bool(unit.told) for unit in units),
            "outside the windows": self.fair,
            "... succeeded": f"{self.good} ({self.rate:.2%})",
            "wrong": len(self.wrong),
        }


def _lies(unit: Unit, is_there: bool) -> Iterator[str]:
    """Say what is wrong about one unit."""
    [told] = unit.told or [None]
    if unit.said is Said.NOTHING:
        yield "never ended"
    if unit.said is Said.COMMITTED and not is_there:
        yield "reported success, and is not there"
    if unit.said in {Said.FAILED, Said.REFUSED} and is_there:
        yield "reported failure, and is there"
    if unit.said is Said.CANCELLED and not unit.caller.was_asked:
        yield "cancelled by nobody"
    if unit.said is Said.CANCELLED and unit.in_commit and not (unit.was_hit or is_there):
        yield "its COMMIT was in flight, and was not finished"
    if unit.is_listening and told not in _TOLD[unit.said]:
        yield "its hook was told something else"
    if (told == "committed" and not is_there) or (told == "rolled_back" and is_there):
        yield "its hook was told what is not so"


_TOLD: dict[Said, set[str | None]] = {
    Said.NOTHING: set(),
    Said.COMMITTED: {"committed"},
    Said.FAILED: {"rolled_back"},
    Said.REFUSED: {"rolled_back"},
    Said.CANCELLED: {"committed", "rolled_back", "unknown"},
    Said.UNKNOWN: {"unknown"},
}


async def _ids(connection: asyncpg.Connection[Any], table: str) -> set[int]:
    return {row["id"] for row in await connection.fetch(f"SELECT id FROM {table}")}
