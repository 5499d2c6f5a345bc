"""What goes wrong at the bank, all of it done by one task on a connection of its own.

COMMITs are held, so that one sees them at work (``pg_stat_activity``) and knows what a
cancellation or a killed backend hits. Backends are killed wherever they are, too, and
the whole server is, once a minute.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import asyncpg

from tests.server import Server
from tests.soak.bank import ACCOUNTS, APPLICATION, BALANCE, GATE
from tests.soak.units import Book, Hold, Said, Unit

_IN_COMMIT = f"""
SELECT pid, wait_event FROM pg_stat_activity WHERE application_name = '{APPLICATION}'
 AND query LIKE 'COMMIT%' AND state = 'active' AND wait_event IN ('advisory', 'SyncRep')
"""
_ANYBODY = f"""
SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION}' ORDER BY random() LIMIT 1
"""
_KILL_EVERY_S = 1.5
_LOOK_FOR_S = 0.3
_WINDOW_S = 0.5
_RESTART_EVERY_S = 60
_PATIENCE_S = 60


class Faults:
    """Makes them, counts them, and knows when they were.

    ``windows``, on the loop's clock: from a kill, or the server's end, until shortly after
    that, or after it has started again.
    """

    def __init__(self, server: Server, book: Book, chance: random.Random) -> None:
        self._server = server
        self._book = book
        self._chance = chance
        self._admin: asyncpg.Connection[Any]
        self._clock = asyncio.get_running_loop().time
        self.kills = self.kills_in_commit = self.restarts = self.sums = 0
        self.windows: list[tuple[float, ...]] = []

    async def run(self, length_s: float, is_over: Callable[[], bool]) -> None:
        """Make faults until all workers have ended; who waits in COMMIT needs us to go on."""
        self._admin = await asyncpg.connect(self._server.admin_url)
        restart_at = self._clock() + min(length_s, _RESTART_EVERY_S) / 2
        kill_at = self._clock() + _KILL_EVERY_S
        try:
            while not is_over():
                kills = self._clock() > kill_at
                if kills:
                    kill_at = self._clock() + _KILL_EVERY_S
                    await self._check_sum()
                await self._hold_commits(kills=kills)
                if self._clock() > restart_at:
                    restart_at += _RESTART_EVERY_S
                    await self._restart()
                await asyncio.sleep(0.01)
        finally:
            await self._admin.close()

    async def _hold_commits(self, *, kills: bool) -> None:
        """Close the gate, do something to the COMMITs that are seen, and let the rest go on."""
        await self._admin.execute(f"SELECT pg_advisory_lock({GATE})")
        seen = await self._look()
        if kills and (not seen or self._chance.random() < 0.5):
            await self._kill(await self._admin.fetchval(_ANYBODY))
        elif kills:
            pid = self._chance.choice([*seen])
            await self._kill(pid)
            self.kills_in_commit += 1
            del seen[pid]
        chosen = [unit for unit in seen.values() if self._chance.random() < 0.7]
        await self._cancel(chosen)
        await self._admin.execute(f"SELECT pg_advisory_unlock({GATE})")
        for pid, unit in seen.items():
            if unit.hold is Hold.AFTER:
                await self._admin.execute("SELECT pg_cancel_backend($1)", pid)

    async def _look(self) -> dict[int, Unit]:
        """Wait a little for COMMITs at work, and give the units that they are of."""
        until = self._clock() + _LOOK_FOR_S
        enough = self._chance.randint(1, 4)
        while len(rows := await self._admin.fetch(_IN_COMMIT)) < enough and self._clock() < until:
            await asyncio.sleep(0)
        seen = {pid: self._book.at[pid] for pid, _ in rows if pid in self._book.at}
        for pid, event in rows:
            if pid not in seen or seen[pid].hold is not Hold(event):
                self._book.wrong.append(f"COMMIT at {event} of nobody, or not of {seen.get(pid)}")
        return seen

    async def _cancel(self, units: list[Unit]) -> None:
        """Cancel callers whose COMMIT is held: they have to wait for its end."""
        for unit in units:
            unit.in_commit = unit.caller.cancel()
        for _ in range(self._chance.randint(0, 5)):
            await asyncio.sleep(0)
            if self._chance.random() < 0.3:
                for unit in units:
                    unit.caller.cancel()
        self._book.wrong += [
            f"{unit.number} ended with its COMMIT in flight: {unit.said}"
            for unit in units
            if unit.said is not Said.NOTHING
        ]

    async def _kill(self, pid: int | None) -> None:
        if pid in self._book.at:
            self._book.at[pid].was_hit = True
        start = self._clock()
        if pid is not None and await self._admin.fetchval("SELECT pg_terminate_backend($1)", pid):
            self.kills += 1
        self.windows.append((start, self._clock() + _WINDOW_S))

    async def _restart(self) -> None:
        """Kill the server with COMMITs held in it, and start it again."""
        await self._admin.execute(f"SELECT pg_advisory_lock({GATE})")
        await self._look()
        start = self._clock()
        for unit in self._book.at.values():
            unit.was_hit = True
        self._server.kill()
        await self._admin.close(timeout=1)
        self._admin = await self._started_again()
        self.restarts += 1
        self.windows.append((start, self._clock() + _WINDOW_S))
        await self._check_sum()

    async def _started_again(self) -> asyncpg.Connection[Any]:
        until = self._clock() + _PATIENCE_S
        while True:
            self._server.start_again()
            try:
                return await asyncpg.connect(self._server.admin_url)
            except (OSError, asyncpg.PostgresError):
                assert self._clock() < until, "the server did not start again"
                await asyncio.sleep(0.02)

    async def _check_sum(self) -> None:
        """Look at all balances in one snapshot."""
        found = await self._admin.fetchval("SELECT sum(balance) FROM account")
        self.sums += 1
        if found != ACCOUNTS * BALANCE:
            self._book.wrong.append(f"the sum was {found} after {self.sums} looks")
