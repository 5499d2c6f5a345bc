"""APScheduler's AsyncIOScheduler: a job is a unit, and has ended when a listener hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.work import Later, SideBySide, Transfer, committed, work
from tests.notes import Boom, write
from txkit import (
    Database,
    after_commit,
    after_completion,
    in_transaction,
    new_context,
    transactional,
)


@pytest.fixture
async def scheduler() -> AsyncIterator[AsyncIOScheduler]:
    one = AsyncIOScheduler()
    one.start()
    yield one
    if one.running:
        one.shutdown()


class Listener:
    """Hears how jobs end."""

    def __init__(self, scheduler: AsyncIOScheduler, judge: SqliteJudge | None = None) -> None:
        self.judge = judge
        self.events: asyncio.Queue[JobExecutionEvent] = asyncio.Queue()
        self.seen: list[list[str]] = []
        scheduler.add_listener(self.hear, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)

    def hear(self, event: JobExecutionEvent) -> None:
        if self.judge is not None:
            self.seen.append(committed(self.judge))
        self.events.put_nowait(event)

    async def next(self) -> JobExecutionEvent:
        async with asyncio.timeout(20):
            return await self.events.get()


async def test_job_has_committed_when_a_listener_hears_of_it(
    lite: Database, sqlite_judge: SqliteJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler, sqlite_judge)
    scheduler.add_job(transactional(work), args=[lite, "good"])
    assert (await listener.next()).retval == "good done"
    scheduler.add_job(transactional(work), kwargs={"db": lite, "text": "bad"})
    assert isinstance((await listener.next()).exception, Boom)
    assert listener.seen == [["good"], ["good"]]


async def test_arguments_are_checked_as_those_of_the_undecorated_function(
    scheduler: AsyncIOScheduler,
) -> None:
    messages: list[str] = []
    for function in (work, transactional(work)):
        with pytest.raises(ValueError, match="text") as raised:
            scheduler.add_job(function, args=["only one"])
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


class Notes:
    def __init__(self, db: Database) -> None:
        self.db = db

    @transactional
    async def add(self, text: str) -> None:
        await write(self.db, text)


async def test_method_and_partial_are_jobs(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)
    scheduler.add_job(Notes(db).add, args=["method"])
    await listener.next()
    scheduler.add_job(partial(transactional(work), db), args=["partial"])
    await listener.next()
    assert await pg.texts() == ["method", "partial"]


async def test_job_decorated_by_the_scheduler_runs_each_time_in_a_new_unit(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)
    seen: list[list[str]] = []

    @scheduler.scheduled_job("interval", seconds=0.05, max_instances=1)
    @transactional
    async def tick() -> None:
        seen.append(await pg.texts())
        await write(db, f"tick {len(seen)}")
        if len(seen) == 1:
            raise Boom

    assert (await listener.next()).code == EVENT_JOB_ERROR
    assert (await listener.next()).code == EVENT_JOB_EXECUTED
    scheduler.pause()
    assert seen[:2] == [[], []]
    assert (await pg.texts())[0] == "tick 2"


STORED: list[str] = []


@transactional
async def stored() -> None:
    STORED.append("ran")


async def test_job_store_keeps_a_decorated_function_by_its_name(
    tmp_path: Path, scheduler: AsyncIOScheduler
) -> None:
    store = SQLAlchemyJobStore(f"sqlite:///{tmp_path / 'jobs.db'}")
    STORED.clear()
    scheduler.add_jobstore(store, "file")
    listener = Listener(scheduler)
    job = scheduler.add_job(stored, "interval", hours=1, jobstore="file")
    kept = store.lookup_job(job.id)
    assert kept.func_ref == f"{__name__}:stored"
    assert kept.func is stored
    job.modify(next_run_time=datetime.now(UTC))
    await listener.next()
    assert STORED == ["ran"]


async def test_shutdown_cancels_a_job_that_runs_and_it_is_rolled_back(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    has_written = asyncio.Event()
    ended: asyncio.Queue[str] = asyncio.Queue()

    @transactional
    async def wait() -> None:
        after_completion(ended.put_nowait)
        await write(db, "tea")
        has_written.set()
        await asyncio.Event().wait()

    scheduler.add_job(wait)
    async with asyncio.timeout(20):
        await has_written.wait()
        scheduler.shutdown()
        assert await ended.get() == "rolled_back"
    assert await pg.texts() == []


async def test_jobs_side_by_side_do_not_meet(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)
    both = SideBySide(db)
    for text in ("good", "bad"):
        scheduler.add_job(transactional(both.work), args=[text])
    ends = {(await listener.next()).code, (await listener.next()).code}
    assert ends == {EVENT_JOB_EXECUTED, EVENT_JOB_ERROR}
    assert await pg.texts() == ["good"]


async def test_job_that_a_unit_adds_by_a_hook_is_a_unit_of_its_own(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)
    seen: list[Any] = []

    @transactional
    async def job() -> None:
        seen.append((in_transaction(), await pg.texts()))
        await write(db, "job")

    @transactional
    async def unit() -> None:
        await write(db, "unit")
        after_commit(lambda: scheduler.add_job(job))

    await unit()
    assert (await listener.next()).exception is None
    assert seen == [(False, ["unit"])]
    assert await pg.texts() == ["unit", "job"]


async def test_job_that_a_unit_adds_and_that_runs_when_it_has_ended_is_a_unit_of_its_own(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)

    @transactional
    async def unit() -> None:
        await write(db, "unit")
        scheduler.add_job(transactional(work), args=[db, "job"])
        raise Boom

    with pytest.raises(Boom):
        await unit()
    assert (await listener.next()).exception is None
    assert await pg.texts() == ["job"]


async def test_task_that_outlives_the_job_has_its_own_unit(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)
    later = Later(db)

    @transactional
    async def job() -> None:
        await write(db, "tea")
        later.start("tea later")

    scheduler.add_job(job)
    await listener.next()
    assert await pg.texts() == ["tea"]
    await later.finish()
    assert await pg.texts() == ["tea", "tea later"]


@pytest.mark.parametrize(
    ("decorator", "texts"), [(new_context, ["job"]), (transactional, [])], ids=["own", "joins"]
)
async def test_job_that_runs_while_the_unit_that_added_it_is_alive_needs_new_context(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler, decorator: Any, texts: list[str]
) -> None:
    """The scheduler's timer, and what it starts, inherit the context of who set it."""
    listener = Listener(scheduler)

    @transactional
    async def unit() -> None:
        await write(db, "unit")
        scheduler.add_job(decorator(work), args=[db, "job"])
        assert (await listener.next()).exception is None
        raise Boom

    with pytest.raises(Boom):
        await unit()
    assert await pg.texts() == texts


async def test_job_without_a_decorator_is_told(
    db: Database, pg: PostgresJudge, scheduler: AsyncIOScheduler
) -> None:
    listener = Listener(scheduler)
    transfer = Transfer(db, pg)

    async def job() -> None:
        await transfer.debit()
        await transfer.credit()

    with transfer.is_told("job"):
        scheduler.add_job(job)
        assert (await listener.next()).exception is None
    assert await pg.texts() == ["debit", "credit"]
