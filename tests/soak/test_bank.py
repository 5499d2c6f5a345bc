"""A bank under load while its tasks are cancelled, its backends killed, its server restarted.

``TXKIT_SOAK_S=600`` makes it ten minutes; with ``-n 0`` the figures are printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator

import asyncpg
import pytest
from sqlalchemy import text

from tests import server as postgres
from tests.conftest import PostgresJudge, opened
from tests.soak.bank import APPLICATION, KINDS, SCHEMA, SETTINGS, Bank
from tests.soak.faults import Faults
from tests.soak.judging import Verdict
from tests.soak.units import Book, Caller
from txkit import Database, db_session, new_context

SECONDS = float(os.environ.get("TXKIT_SOAK_S", "60"))
GRACE_S = 180
POOL = 8
WORKERS = 24
CANCELLATIONS, IN_COMMIT, KILLS, RESTARTS, RATE = 1000, 100, 20, 1, 0.9


@pytest.fixture
def bank_server() -> Iterator[postgres.Server]:
    running = postgres.start_own(SETTINGS)
    yield running
    running.stop()


class Course:
    """How far a run is: it ends by time, but not before there was enough of everything."""

    def __init__(self, book: Book, faults: Faults) -> None:
        self._book = book
        self._faults = faults
        self._start = asyncio.get_running_loop().time()

    @property
    def passed_s(self) -> float:
        return asyncio.get_running_loop().time() - self._start

    def is_over(self) -> bool:
        if self._book.wrong:
            return True
        if self.passed_s < SECONDS:
            return False
        has_all = (
            self._book.cancellations >= CANCELLATIONS
            and self._book.cancelled_in_commit >= IN_COMMIT
            and self._faults.kills >= KILLS
            and self._faults.restarts >= RESTARTS
        )
        return has_all or self.passed_s > SECONDS + GRACE_S

    def is_behind(self) -> bool:
        """Whether there are too few cancellations yet, on a machine that is busy."""
        return self._book.cancellations < 1.3 * CANCELLATIONS * self.passed_s / SECONDS


async def work(bank: Bank, course: Course) -> None:
    """Draw units, and call each in one of the ways in which it can be cancelled."""
    loop = asyncio.get_running_loop()
    while not course.is_over():
        caller = Caller()
        [kind] = bank.chance.choices([*KINDS], [*KINDS.values()])
        call = bank.chance.choice([caller.by_task, caller.by_timeout, caller.by_scope])
        alarms = []
        share, longest = (0.8, 1) if course.is_behind() else (0.4, 2)
        if bank.chance.random() < share:
            after = bank.chance.uniform(0, longest * bank.book.usual_s)
            alarms.append(loop.call_later(after, caller.cancel))
            if bank.chance.random() < 0.3:
                alarms.append(loop.call_later(after * 1.2, caller.cancel))
        with contextlib.suppress(Exception):  # it is in the book
            await call(lambda caller, kind=kind: kind(bank, caller))
        for alarm in alarms:
            alarm.cancel()
        bank.book.cancellations += caller.was_cancelled
        await asyncio.sleep(bank.chance.uniform(0, 0.02))


@pytest.mark.timeout(SECONDS + 2 * GRACE_S)
async def test_no_unit_lies_and_no_connection_is_lost(
    bank_server: postgres.Server,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting_up = await asyncpg.connect(bank_server.admin_url)
    await setting_up.execute(SCHEMA)
    await setting_up.close()
    chance = random.Random()
    book = Book()
    faults = Faults(bank_server, book, chance)
    course = Course(book, faults)
    connect_args = {"ssl": False, "server_settings": {"application_name": APPLICATION}}
    address = PostgresJudge(None, bank_server.admin_url)  # type: ignore[arg-type]
    async for db in opened(
        address,
        connect_args=connect_args,
        pool_size=POOL,
        max_overflow=0,
        finish_timeout_s=30,
    ):
        bank = Bank(db, book, chance, audits=POOL // 3)
        workers = [asyncio.create_task(work(bank, course)) for _ in range(WORKERS)]
        everybody = asyncio.gather(*workers)
        await faults.run(SECONDS, everybody.done)
        await everybody
        judge = await asyncpg.connect(bank_server.admin_url)
        try:
            await no_connection_is_lost(db, PostgresJudge(judge, bank_server.admin_url))
            verdict = Verdict(book, faults)
            await verdict.judge(judge)
        finally:
            await judge.close()
        figures = verdict.figures()
        for name, figure in figures.items():
            record_property(name, figure)
        with capsys.disabled():
            sys.stdout.write(
                "\n" + "\n".join(f"{name:28}{figure}" for name, figure in figures.items()) + "\n"
            )
        assert not verdict.wrong, "\n".join(verdict.wrong[:20])
        assert verdict.rate >= RATE, verdict.failures.most_common(10)
        assert book.cancellations >= CANCELLATIONS
        assert book.cancelled_in_commit >= IN_COMMIT
        assert faults.kills >= KILLS
        assert faults.restarts >= RESTARTS


async def no_connection_is_lost(db: Database, judge: PostgresJudge) -> None:
    """The pool is whole: nothing is out, a full pool works, and the server has nothing more."""
    pool = (await db.engine()).pool
    assert pool.checkedout() == 0  # type: ignore[attr-defined]
    together = asyncio.Barrier(POOL)

    @new_context
    async def pid() -> int:
        session = await db_session(db)
        found = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await together.wait()
        return found

    async with asyncio.timeout(30):
        pids = set(await asyncio.gather(*(pid() for _ in range(POOL))))
        while {pid for pid, _ in await judge.backends()} != pids:
            await asyncio.sleep(0)
    assert {state for _, state in await judge.backends()} == {"idle"}
