"""arq on a Redis: a result is stored when the job's unit has committed; a retry is a unit of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from arq import ArqRedis, Retry, Worker, create_pool, cron, func
from arq.connections import RedisSettings
from arq.jobs import Job

from tests.conftest import PostgresJudge
from tests.frameworks.fake_redis import redis_server
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, transactional

Context = dict[str, Any]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server() as one:
        yield one


@pytest.fixture
async def redis(port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ArqRedis]:
    async def no_log_line(_redis: object, _log: object) -> None:
        """The fake server has no INFO, which a worker logs at its start."""

    monkeypatch.setattr("arq.worker.log_redis_info", no_log_line)
    pool = await create_pool(RedisSettings(host="127.0.0.1", port=port))
    await pool.flushall()
    yield pool
    await pool.aclose()


def worker(redis: ArqRedis, *functions: Any, **options: Any) -> Worker:
    """A worker that ends when the queue is empty."""
    options = {"poll_delay": 0.01, **options}
    return Worker(functions, redis_pool=redis, burst=True, handle_signals=False, **options)


async def enqueued(redis: ArqRedis, name: str, *args: Any, **kwargs: Any) -> Job:
    job = await redis.enqueue_job(name, *args, **kwargs)
    assert job is not None
    return job


async def result_of(job: Job) -> object:
    try:
        return await job.result(timeout=5, poll_delay=0.01)
    except (Boom, TimeoutError) as error:
        return error


def test_function_is_registered_as_the_undecorated_one() -> None:
    async def take(ctx: Context, text: str, times: int = 1) -> None: ...

    decorated, plain = func(transactional(take)), func(take)
    assert decorated.name == plain.name
    assert decorated.coroutine.__annotations__ == plain.coroutine.__annotations__


async def test_result_is_stored_after_the_commit(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    seen: list[list[str]] = []

    @transactional
    async def take(ctx: Context, text: str, *, again: bool) -> str:
        assert again
        return await work(ctx["db"], text)

    async def look(ctx: Context) -> None:
        """Between the job's end and its result."""
        assert not await redis.exists(f"arq:result:{ctx['job_id']}")
        seen.append(await pg.texts())

    one = worker(redis, func(take, name="take"), ctx={"db": db}, on_job_end=look)
    good = await enqueued(redis, "take", "good", again=True)
    await one.main()
    bad = await enqueued(redis, "take", "bad", again=True)
    await one.main()
    assert seen == [["good"], ["good"]]
    assert await result_of(good) == "good done"
    assert isinstance(await result_of(bad), Boom)
    assert (one.jobs_complete, one.jobs_failed, one.jobs_retried) == (1, 1, 0)


async def test_retry_rolls_back_and_runs_in_a_new_unit(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    seen: list[list[str]] = []

    @transactional
    async def take(ctx: Context, text: str) -> None:
        seen.append(await pg.texts())
        await write(db, f"{text} {ctx['job_try']}")
        if ctx["job_try"] < 3:
            raise Retry

    one = worker(redis, func(take, name="take"))
    await enqueued(redis, "take", "try")
    await one.main()
    assert seen == [[], [], []]
    assert await pg.texts() == ["try 3"]
    assert (one.jobs_complete, one.jobs_failed, one.jobs_retried) == (1, 0, 2)


async def test_retry_that_commits_by_a_rule_is_retried_all_the_same(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    @transactional(no_rollback_for=Retry)
    async def take(ctx: Context, text: str) -> None:
        await write(db, f"{text} {ctx['job_try']}")
        if ctx["job_try"] == 1:
            raise Retry

    await enqueued(redis, "take", "step")
    await worker(redis, func(take, name="take")).main()
    assert await pg.texts() == ["step 1", "step 2"]


async def test_aborted_job_is_rolled_back(db: Database, pg: PostgresJudge, redis: ArqRedis) -> None:
    has_written = asyncio.Event()

    @transactional
    async def take(ctx: Context, text: str) -> None:
        await write(db, text)
        has_written.set()
        await asyncio.Event().wait()

    one = worker(redis, func(take, name="take"), allow_abort_jobs=True)
    job = await enqueued(redis, "take", "tea")
    running = asyncio.create_task(one.main())
    async with asyncio.timeout(20):
        await has_written.wait()
    assert await job.abort(timeout=5, poll_delay=0.01)
    await running
    assert await pg.texts() == []


async def test_job_of_a_worker_that_is_stopped_is_rolled_back_and_run_again(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    has_written = asyncio.Event()

    @transactional
    async def take(ctx: Context, text: str) -> None:
        await write(db, f"{text} {ctx['job_try']}")
        if ctx["job_try"] == 1:
            has_written.set()
            await asyncio.Event().wait()

    function = func(take, name="take")
    await enqueued(redis, "take", "try")
    stopped = worker(redis, function)
    running = asyncio.create_task(stopped.async_run())
    async with asyncio.timeout(20):
        await has_written.wait()
    stopped.handle_sig(signal.SIGTERM)
    jobs = list(stopped.tasks.values())
    await asyncio.gather(running, *jobs, return_exceptions=True)
    assert await pg.texts() == []
    await worker(redis, function).main()
    assert await pg.texts() == ["try 2"]


async def test_job_that_takes_too_long_is_rolled_back(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    @transactional
    async def take(ctx: Context, text: str) -> None:
        await write(db, text)
        await asyncio.Event().wait()

    job = await enqueued(redis, "take", "tea")
    await worker(redis, func(take, name="take", timeout=0.2)).main()
    assert isinstance(await result_of(job), TimeoutError)
    assert await pg.texts() == []


async def test_bound_method_is_a_job(db: Database, pg: PostgresJudge, redis: ArqRedis) -> None:
    class Notes:
        def __init__(self, db: Database) -> None:
            self.db = db

        @transactional
        async def take(self, ctx: Context, text: str, times: int = 1) -> None:
            for _ in range(times):
                await write(self.db, text)

    await enqueued(redis, "take", "tea", times=2)
    await worker(redis, func(Notes(db).take, name="take")).main()
    assert await pg.texts() == ["tea", "tea"]


async def test_cron_job_is_a_unit(db: Database, pg: PostgresJudge, redis: ArqRedis) -> None:
    @transactional
    async def tick(ctx: Context) -> None:
        await write(db, "tick")

    job = cron(tick, name="tick", month=1, day=1, run_at_startup=True)
    one = worker(redis, cron_jobs=[job])
    await one.main()
    assert await pg.texts() == ["tick"]


async def test_jobs_side_by_side_do_not_meet(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    both = SideBySide(db)

    @transactional
    async def take(ctx: Context, text: str) -> str:
        return await both.work(text)

    good, bad = [await enqueued(redis, "take", text) for text in ("good", "bad")]
    await worker(redis, func(take, name="take")).main()
    assert await result_of(good) == "good done"
    assert isinstance(await result_of(bad), Boom)
    assert await pg.texts() == ["good"]


async def test_task_that_outlives_the_job_has_its_own_unit(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    later = Later(db)

    @transactional
    async def take(ctx: Context, text: str) -> None:
        await write(db, text)
        later.start(f"{text} later")

    await enqueued(redis, "take", "tea")
    await worker(redis, func(take, name="take")).main()
    assert await pg.texts() == ["tea"]
    await later.finish()
    assert await pg.texts() == ["tea", "tea later"]


async def test_function_without_a_decorator_can_not_be_told(
    db: Database, pg: PostgresJudge, redis: ArqRedis
) -> None:
    """It is a task of its own, in which arq is not seen; a warning would be an error."""
    transfer = Transfer(db, pg)

    async def take(ctx: Context) -> str:
        await transfer.debit()
        await transfer.credit()
        return "done"

    job = await enqueued(redis, "take")
    await worker(redis, func(take, name="take")).main()
    assert await result_of(job) == "done"
    assert await pg.texts() == ["debit", "credit"]
