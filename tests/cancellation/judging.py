"""What must hold after every run, however and wherever it was cancelled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

from tests.cancellation.stage import Scenario, Stage, said
from tests.cancellation.steps import Run
from tests.conftest import PostgresJudge
from txkit import Database

_AT_MOST_S = 2
_WAKES_MORE = 25
"""What a cancellation may cost: the server is asked to cancel a statement, and rolls back."""

_NEVER_LEFT = ("the unit", "txkit: finishing")

_BACKENDS = (
    "SELECT pid, state, query, EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid) AS locks"
    " FROM pg_stat_activity a WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)
Rows = Counter[str]


async def at_rest(db: Database, judge: PostgresJudge) -> tuple[int, list[str]]:
    """Wait until every backend is idle, without a lock, and known to the pool; complain if not.

    Gives how many there are, too.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _AT_MOST_S
    pool = (await db.engine()).pool
    while True:
        found = await judge.fetch(_BACKENDS)
        busy = [one for one in found if one["state"] != "idle" or one["locks"]]
        known = pool.checkedin()  # type: ignore[attr-defined]  # with places of what was discarded
        if not busy and len(found) <= known:
            return len(found), []
        if loop.time() > end:
            return len(found), [f"not at rest: {busy}; {len(found)} backends, {known} in the pool"]


async def taken_rows(judges: list[PostgresJudge]) -> Rows:
    """Take the rows that are committed, and leave none."""
    found: Rows = Counter()
    for judge in judges:
        found.update(row["text"] for row in await judge.fetch("DELETE FROM note RETURNING text"))
    return found


def wrong_rows(rows: Rows, whole: Rows, expected: tuple[str, ...]) -> Iterator[str]:
    """Every part is there as a whole or not at all, and as the COMMITs that were sent say."""
    for part in sorted(whole | rows):
        there = rows[part]
        if there not in {0, whole[part]}:
            yield f"part {part!r} is torn: {there} of {whole[part]} rows"
        if (part in expected) is not bool(there):
            yield f"part {part!r} has {there} rows, committed should be {expected}"


def wrong_hooks(stage: Stage, rows: Rows) -> Iterator[str]:
    """Each ran once, to its end, and told the truth."""
    for part, told in stage.told.items():
        rest = list(told)
        if rest[:1] == ["before_commit begins"]:
            del rest[: 2 if rest[1:2] == ["before_commit ends"] else 1]
        if rows[part]:
            expected = said("after_commit") + said("after_completion committed")
            whole = [*said("before_commit"), *expected]
        else:
            expected = said("after_rollback") + said("after_completion rolled_back")
            whole = [*told[: len(told) - len(rest)], *expected]
        if told != whole:
            yield f"hooks of {part!r}, which has {rows[part]} rows: {told}"


def wrong_end(run: Run, scenario: Scenario, left: object) -> Iterator[str]:
    """What left the call: the cancellation, or what the unit had to say."""
    wanted = asyncio.CancelledError if run.was_struck else scenario.leaves
    if left != wanted:
        yield f"{left!r} left the call, not {wanted!r}"


def wrong_wakes(run: Run, calm: int) -> Iterator[str]:
    """Nothing spins: the tasks were woken about as often as in a run that nobody cancelled."""
    most = (2 if run.again else 1) * calm + _WAKES_MORE
    if run.wakes > most:
        yield f"{run.wakes} wake-ups, at most {most} are expected (uncancelled: {calm})"


async def left_tasks(run: Run) -> list[str]:
    """Complain of tasks that are left.

    Who sees to it that a statement ends at the server may take a moment: the driver's own
    request, and txkit's that waits for it.
    """
    left = [one for one in run.tasks if not one.done()]
    names = {one.get_name() for one in left}
    wrong = [f"left behind: {one}" for one in names if one.startswith(_NEVER_LEFT)]
    if left:
        _, left_s = await asyncio.wait(left, timeout=_AT_MOST_S)
        wrong += [f"left for {_AT_MOST_S} s: {one}" for one in left_s]
    return wrong
