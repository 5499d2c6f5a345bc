"""What only a queue has: messages that come twice, too early, or not to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from samples.ledger.fronts import worker
from samples.ledger.orders import Order
from samples.ledger.tables import make_tables
from tests.samples.conftest import Place
from tests.samples.fronts.client import Answer, Outcome
from tests.samples.fronts.over_queue import OverQueue, queue
from tests.samples.programs import start

DONE, BEFORE = Answer(Outcome.DONE), Answer(Outcome.BEFORE)
TRAIL = "SELECT key, outcome FROM attempt ORDER BY id"
BODY = {"key": "a", "source": "external", "target": "alice", "amount_cents": 500}


@pytest.fixture
async def sender(place: Place, redis_url: str) -> AsyncIterator[OverQueue]:
    """A client at an empty queue, and the ledger's tables; nobody works there yet."""
    async with queue(place.url, redis_url) as one:
        await make_tables(one.ledger.database)
        yield one
    await place.books_balance()


@pytest.fixture
async def redis(sender: OverQueue) -> Redis[bytes]:
    return await sender.broker.connect()


async def delivered(redis: Redis[bytes]) -> list[dict[str, Any]]:
    """Give the messages that were delivered and not acknowledged."""
    return await redis.xpending_range(worker.TRANSFERS, worker.GROUP, "-", "+", 10)


async def all_acknowledged(redis: Redis[bytes]) -> None:
    """Wait until nothing is: an answer comes a moment before its acknowledgement."""
    async with asyncio.timeout(10):
        while await delivered(redis):
            pass


async def test_order_that_came_before_the_first_worker_is_posted(
    sender: OverQueue, place: Place, redis: Redis[bytes], redis_url: str
) -> None:
    answer = await sender.send(worker.TRANSFERS, BODY)
    async with worker.create_app(place.url, redis_url):
        assert await answer == DONE
        await all_acknowledged(redis)
    assert await place.rows(TRAIL) == [("a", "posted")]


async def test_redelivered_order_is_answered_posted_before(
    sender: OverQueue, place: Place, redis: Redis[bytes], redis_url: str
) -> None:
    """Scenario: a worker has committed, and died before it could acknowledge.
    Outcome: the message is taken over, acknowledged, and posted once.
    """
    await redis.xgroup_create(worker.TRANSFERS, worker.GROUP, id="0", mkstream=True)
    answer = await sender.send(worker.TRANSFERS, BODY)
    assert await redis.xreadgroup(worker.GROUP, "died", {worker.TRANSFERS: ">"})
    await sender.ledger.submit(Order(**BODY))
    async with worker.create_app(place.url, redis_url, idle_ms=1):
        assert await answer == BEFORE
        await all_acknowledged(redis)
    assert await place.rows("SELECT count(*) FROM posting") == [(2,)]
    assert await place.rows(TRAIL) == [("a", "posted"), ("a", "already posted")]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_order_of_a_worker_killed_in_its_unit_is_posted_by_another(
    sender: OverQueue, place: Place, redis: Redis[bytes], redis_url: str, tmp_path: Path
) -> None:
    """Scenario: a worker's unit waits for a locked account; there the worker gets SIGKILL.
    Outcome: nothing of it is there, the message is not acknowledged, and another worker posts it.
    """
    assert place.judge is not None
    answer = await sender.send(worker.TRANSFERS, BODY)
    async with place.judge.connection.transaction():
        await place.judge.connection.execute("SELECT 1 FROM account FOR UPDATE")
        process = start(
            tmp_path, "samples.ledger.fronts.worker", LEDGER_URL=place.url, REDIS_URL=redis_url
        )
        try:
            await place.somebody_waits_for_a_lock(answer)
            assert [one["times_delivered"] for one in await delivered(redis)] == [1]
        finally:
            process.kill()
            process.communicate()
    assert await place.rows(TRAIL) == []
    async with worker.create_app(place.url, redis_url, idle_ms=1):
        assert await answer == DONE
        await all_acknowledged(redis)
    assert await place.rows(TRAIL) == [("a", "posted")]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_message_is_acknowledged_after_the_commit(
    sender: OverQueue, place: Place, redis: Redis[bytes], redis_url: str
) -> None:
    """Scenario: the unit is held up in its last step, the COMMIT.
    Outcome: as long as it is, the message is neither answered nor acknowledged.
    """
    async with worker.create_app(place.url, redis_url), held_at_commit(place, "RETURN NULL"):
        answer = await sender.send(worker.TRANSFERS, BODY)
        await place.somebody_waits_for_a_lock(answer)
        assert len(await delivered(redis)) == 1
        assert await place.rows(TRAIL) == []
        await release(place)
        assert await answer == DONE
        assert await place.rows(TRAIL) == [("a", "posted")]
        await all_acknowledged(redis)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_message_whose_commit_failed_is_not_acknowledged_and_comes_again(
    sender: OverQueue, place: Place, redis: Redis[bytes], redis_url: str
) -> None:
    """Scenario: the database refuses the COMMIT; then it is mended, and another worker begins.
    Outcome: the message was neither answered nor acknowledged; now it is posted.
    """
    async with held_at_commit(place, "RAISE EXCEPTION 'no room'"):
        async with worker.create_app(place.url, redis_url):
            answer = await sender.send(worker.TRANSFERS, BODY)
            await place.somebody_waits_for_a_lock(answer)
            await release(place)  # a worker that is told to stop finishes what it has begun
        assert not answer.done()
        assert [one["times_delivered"] for one in await delivered(redis)] == [1]
        assert await place.rows(TRAIL) == []
    async with worker.create_app(place.url, redis_url, idle_ms=1):
        assert await answer == DONE
        await all_acknowledged(redis)
    assert await place.rows(TRAIL) == [("a", "posted")]


@asynccontextmanager
async def held_at_commit(place: Place, then: str) -> AsyncIterator[None]:
    """Let every transfer's COMMIT wait for ``release``, and then do that."""
    assert place.judge is not None
    await place.judge.connection.execute(
        f"""
        CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(7); {then}; END $$;
        CREATE CONSTRAINT TRIGGER held AFTER INSERT ON transfer
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION held();
        SELECT pg_advisory_lock(7);
        """
    )
    try:
        yield
    finally:
        await place.judge.connection.execute("SELECT pg_advisory_unlock_all()")
        await place.judge.connection.execute("DROP TRIGGER held ON transfer")


async def release(place: Place) -> None:
    assert place.judge is not None
    await place.judge.connection.execute("SELECT pg_advisory_unlock(7)")


@pytest.mark.parametrize("body", ["no order", b"\xff", [1], {"key": "a"}, None])
@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_message_that_is_no_order_is_answered_and_acknowledged(
    body: object, sender: OverQueue, place: Place, redis: Redis[bytes], redis_url: str
) -> None:
    async with worker.create_app(place.url, redis_url):
        answer = await (await sender.send(worker.TRANSFERS, body))
        assert (answer.outcome, bool(answer.reason)) == (Outcome.REFUSED, True)
        await all_acknowledged(redis)
    assert await place.rows(TRAIL) == []
