"""What is known of each unit of the bank from the moment that it starts: the book.

A unit's caller can be cancelled, in one of three ways. What the unit said when it
ended, and what its hook was told, is written down here, and compared with the rows
in the end (``judging``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import anyio

from txkit import AfterCommitError, CommitOutcomeUnknownError

Work: TypeAlias = Callable[["Caller"], Awaitable[None]]


class Refused(Exception):
    """The bank refuses a transfer that it has already written: it must not be there."""


class Said(Enum):
    """How a unit ended, as its caller saw it."""

    NOTHING = "never ended"
    COMMITTED = "returned"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Hold(Enum):
    """Where a COMMIT waits until somebody lets it go on; its value is the event waited for."""

    BEFORE = "advisory"  # in a deferred trigger: nothing is committed yet
    AFTER = "SyncRep"  # for a standby: it is durable already, only the answer is missing


class Caller:
    """Who called a unit, and how to cancel that."""

    def __init__(self) -> None:
        self.was_asked = False
        self.was_cancelled = False
        self._cancel: Callable[[], object] | None = None

    def cancel(self) -> bool:
        """Cancel; whether there was still somebody to cancel."""
        if self._cancel is None:
            return False
        self.was_asked = True
        self._cancel()
        return True

    async def by_task(self, work: Work) -> None:
        task = asyncio.ensure_future(work(self))
        self._cancel = task.cancel
        await asyncio.wait({task})
        self._cancel = None
        if not task.cancelled():
            task.exception()  # it is in the book

    async def by_timeout(self, work: Work) -> None:
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(None) as limit:
            self._cancel = lambda: limit.expired() or limit.reschedule(now())
            try:
                await work(self)
            finally:
                self._cancel = None

    async def by_scope(self, work: Work) -> None:
        with anyio.CancelScope() as scope:
            self._cancel = scope.cancel
            try:
                await work(self)
            finally:
                self._cancel = None


@dataclass(slots=True, eq=False)
class Unit:
    """One unit of work: what it was to do, and what became of it.

    ``was_hit``: its backend or its server was killed. ``in_commit``: it was cancelled
    while the server was seen at its COMMIT.
    """

    number: int
    kind: str
    caller: Caller
    moves: list[tuple[int, int]] = field(default_factory=list)
    hold: Hold | None = None
    listens: bool = False
    started: float = 0.0
    ended: float = 0.0
    said: Said = Said.NOTHING
    error: str = ""
    told: list[str] = field(default_factory=list)
    is_listening: bool = False
    is_noticed: bool = False
    was_hit: bool = False
    in_commit: bool = False


class Book:
    """Every unit, and which of them wrote last through which backend."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.at: dict[int, Unit] = {}
        self.cancellations = 0
        self.wrong: list[str] = []
        self.usual_s = 0.01

    @property
    def cancelled_in_commit(self) -> int:
        return sum(unit.in_commit and unit.said is Said.CANCELLED for unit in self.units)

    async def run(self, unit: Unit, work: Awaitable[None]) -> None:
        """Write down how ``work`` ends, and let that happen."""
        clock = asyncio.get_running_loop().time
        self.units.append(unit)
        unit.started = clock()
        try:
            await work
            unit.said = Said.COMMITTED
        except asyncio.CancelledError:
            unit.said = Said.CANCELLED
            unit.caller.was_cancelled = True
            raise
        except BaseException as error:
            unit.said = _said(unit, error)
            unit.error = f"{type(error).__name__}: {error}"[:200]
            raise
        finally:
            unit.ended = clock()
            if not unit.caller.was_asked:
                self.usual_s += (unit.ended - unit.started - self.usual_s) / 50
            for pid in [pid for pid, one in self.at.items() if one is unit]:
                del self.at[pid]


def _said(unit: Unit, error: BaseException) -> Said:
    if isinstance(error, AfterCommitError):
        return Said.COMMITTED
    is_audits = isinstance(error, CommitOutcomeUnknownError) and error.function.endswith(".audit")
    if is_audits and unit.kind != "audit":
        return Said.FAILED  # it names the unit inside of this one, which rolled back for it
    if isinstance(error, CommitOutcomeUnknownError):
        return Said.UNKNOWN
    return Said.REFUSED if isinstance(error, Refused) else Said.FAILED
