"""A client of the worker: orders go into a stream, answers come out of another.

Redis is one that speaks its protocol on a socket of this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fakeredis import TcpFakeServer
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.annotations import RedisStreamMessage

from samples.ledger.books import read_books
from samples.ledger.database import open_database
from samples.ledger.fronts import worker
from samples.ledger.services import Ledger
from tests.samples.fronts.client import Answer, Client, Outcome, Report

OUTCOMES = {
    "posted": Outcome.DONE,
    "posted before": Outcome.BEFORE,
    "opened": Outcome.DONE,
    "open before": Outcome.BEFORE,
    "refused": Outcome.REFUSED,
}

MOST_S = 30


@contextmanager
def redis_server() -> Iterator[str]:
    """Serve a Redis, and give its URL."""
    with TcpFakeServer(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class OverQueue(Client):
    """Sends, and waits for the answer to what it sent.

    The queue takes no questions: who has one asks the services.
    """

    def __init__(self, broker: RedisBroker, ledger: Ledger) -> None:
        self.broker = broker
        self.ledger = ledger
        self._numbers = map(str, itertools.count(1))
        self._answers: dict[str, asyncio.Future[Answer]] = {}

        @broker.subscriber(stream=StreamSub(worker.RESULTS, last_id="0-0"))
        async def read(body: dict[str, str], message: RedisStreamMessage) -> None:
            answer = Answer(OUTCOMES[body["status"]], body.get("detail", ""))
            self._answers[message.correlation_id or ""].set_result(answer)

    async def send(self, stream: str, body: Any) -> asyncio.Task[Answer]:
        """Send a message; what comes back waits for the answer, and not for ever."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self.broker.publish(body, stream=stream, correlation_id=number)
        return asyncio.create_task(_in_time(answer))

    async def submit(self, key: str, source: str, target: str, cents: object) -> Answer:
        body = {"key": key, "source": source, "target": target, "amount_cents": cents}
        return await (await self.send(worker.TRANSFERS, body))

    async def open_account(self, name: str) -> Answer:
        return await (await self.send(worker.ACCOUNTS, {"name": name}))

    async def balance(self, name: str) -> int | None:
        return await self.ledger.balance(name)

    async def report(self) -> Report:
        books = await read_books(self.ledger.database)
        return Report(books.balances, books.transfers, books.balance)


async def _in_time(answer: asyncio.Future[Answer]) -> Answer:
    async with asyncio.timeout(MOST_S):
        return await answer


@asynccontextmanager
async def queue(url: str, redis_url: str) -> AsyncIterator[OverQueue]:
    """A client at an empty queue; nobody works there yet."""
    async with (
        RedisBroker(redis_url, logger=None) as broker,
        open_database(url) as database,
    ):
        await (await broker.connect()).flushall()
        client = OverQueue(broker, Ledger(database))
        await broker.start()
        yield client


@asynccontextmanager
async def over_queue(url: str, redis_url: str) -> AsyncIterator[OverQueue]:
    async with queue(url, redis_url) as client, worker.create_app(url, redis_url):
        yield client
