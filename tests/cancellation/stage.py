"""What a scenario's unit works with: Databases, rows, hooks of every kind, a pause.

Each row says of which part of the unit it is, and so do the hooks: a part is what
is committed together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.cancellation.steps import Run, turns
from tests.notes import write
from txkit import Database, after_commit, after_completion, after_rollback, before_commit

HOOKS = ("before_commit", "after_commit", "after_rollback", "after_completion")


class Stage:
    """One run's. ``told`` is what the hooks of each part have said.

    ``afterwards`` lets those end who take part beside the unit.
    """

    def __init__(self, run: Run, *dbs: Database) -> None:
        self.run = run
        self.db = dbs[0]
        self.db2 = dbs[-1]
        self.told: dict[str, list[str]] = defaultdict(list)
        self.afterwards: list[Callable[[], Awaitable[object] | None]] = []

    def doing(self, *what: str) -> AbstractContextManager[None]:
        return self.run.doing(*what)

    async def write(self, part: str) -> None:
        await write(self.db, part)

    async def pause(self) -> None:
        with self.doing("between statements"):
            await turns()

    def hooks(self, part: str) -> None:
        """Register one of each kind; they suspend, and the one before the commit writes."""
        told = self.told[part]

        def hook(kind: str) -> Callable[..., Awaitable[None]]:
            async def suspends(*outcome: str) -> None:
                told.append(" ".join((kind, *outcome, "begins")))
                with self.doing(f"{kind} hook"):
                    await turns()
                    if kind == "before_commit":
                        await self.write(part)
                told.append(" ".join((kind, *outcome, "ends")))

            return suspends

        before_commit(hook("before_commit"))
        after_commit(hook("after_commit"))
        after_rollback(hook("after_rollback"))
        after_completion(hook("after_completion"))


def said(kind: str) -> list[str]:
    return [f"{kind} begins", f"{kind} ends"]


@dataclass
class Scenario:
    """A unit, its parts in the order of their COMMITs, and where it must have been cancelled.

    ``together``: the first COMMIT decides for all parts. ``leaves`` is what a run that nobody
    cancels returns, or the class of what it raises.
    """

    unit: Callable[[Stage], Awaitable[object]]
    parts: tuple[str, ...] = ("a",)
    inside: tuple[str, ...] = ()
    leaves: object = None
    together: bool = False
    is_cold: bool = False
    set_up: tuple[str, ...] = ()
    connections: int = 1
    databases: int = 1
    pool_size: int = 5
    name: str = ""

    def committed(self, commits: int) -> tuple[str, ...]:
        """Give the parts that are committed when that many COMMITs were sent."""
        return self.parts if self.together and commits else self.parts[:commits]

    def __str__(self) -> str:
        what = "cold" if self.is_cold else self.name
        return getattr(self.unit, "__name__", "unit") + (f"_{what}" if what else "")
