"""Import a file: each line is a unit of its own, so a bad one costs only itself.

May be broken off at any line and started again: the keys tell what was posted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from samples.ledger.orders import Order, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from samples.ledger.csvfile import Line
    from samples.ledger.services import Ledger

MOST_SHOWN = 1000
"""So many refused lines are kept for the report; the audit trail has all but the malformed ones."""


@dataclass(slots=True)
class LineNumbers:
    """A growing set of line numbers that is kept, and shown, as ranges: 2-5, 9."""

    count: int = 0
    ranges: list[list[int]] = field(default_factory=list[list[int]])

    def add(self, number: int) -> None:
        self.count += 1
        if self.ranges and self.ranges[-1][1] == number - 1:
            self.ranges[-1][1] = number
        else:
            self.ranges.append([number, number])

    def __str__(self) -> str:
        shown = [str(a) if a == b else f"{a}-{b}" for a, b in self.ranges[:20]]
        return ", ".join(shown + ["..."] * (len(self.ranges) > len(shown)))


@dataclass(slots=True)
class Result:
    """What became of the lines so far."""

    posted: LineNumbers = field(default_factory=LineNumbers)
    posted_before: LineNumbers = field(default_factory=LineNumbers)
    refused: LineNumbers = field(default_factory=LineNumbers)
    reasons: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def refuse(self, number: int, reason: str) -> None:
        self.refused.add(number)
        if len(self.reasons) < MOST_SHOWN:
            self.reasons.append((number, reason))


async def import_lines(
    ledger: Ledger, lines: Iterable[Line], result: Result, progress: Callable[[int], object]
) -> None:
    """Submit every line, and note in ``result`` what became of it.

    Args:
        ledger: where to.
        lines: each is read when the one before it is done.
        result: right at any moment, also after a cancellation.
        progress: called with each line's size in bytes.

    Cancellation: the unit in flight was rolled back, or finished (then it may be
        missing in ``result``); every line before it stands.
    """
    for line in lines:
        if isinstance(line.content, Order):
            try:
                receipt = await ledger.submit(line.content)
            except RefusedError as refusal:
                result.refuse(line.number, refusal.reason)
            else:
                done = result.posted_before if receipt.posted_before else result.posted
                done.add(line.number)
        else:
            result.refuse(line.number, f"malformed: {line.content}")
        progress(line.size_bytes)
