"""The ledger behind a queue: FastStream, on Redis streams.

Messages are delivered at least once: one is acknowledged after its unit has been
committed and its answer published, so that whatever ends a worker before that makes
the message come again, to this worker or to another. The order's key makes that
safe: it is then answered "posted before". A message that can't be met, now or ever,
is answered with the reason and acknowledged; one that failed for another reason
(no database, say) is not, and comes again when it has been idle for a while.

Run it with ``python -m samples.ledger.fronts.worker``; REDIS_URL says where Redis is.
"""

# pyright: reportUnusedFunction=false
from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any, Literal

from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub
from redis.exceptions import ResponseError

from samples.ledger.fronts import messages
from samples.ledger.fronts.messages import AccountIn, TransferIn
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from txkit import transactional

TRANSFERS, ACCOUNTS, RESULTS, GROUP = "transfers", "accounts", "results", "ledger"
CONSUMER = f"{socket.gethostname()}-{os.getpid()}"
AT_ONCE = 5
"""So many new orders are in work at the same time: as many as the pool has connections."""


def create_app(
    url: str | None = None, redis_url: str | None = None, *, idle_ms: int = 60_000
) -> FastStream:
    """Make the worker for the ledger at a URL, or at LEDGER_URL.

    Args:
        url: of the ledger's database.
        redis_url: of the queue; None is REDIS_URL, or this machine's.
        idle_ms: a message that was delivered that long ago and not acknowledged is taken over.
    """
    ledger = messages.open_ledger(url)
    broker = RedisBroker(redis_url or os.environ.get("REDIS_URL", "redis://localhost:6379"))
    _handlers(broker, ledger, idle_ms)

    async def prepare() -> None:
        await make_tables(ledger.database)
        redis = await broker.connect()
        for stream in (TRANSFERS, ACCOUNTS):
            with contextlib.suppress(ResponseError):  # the group is there
                await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)

    return FastStream(broker, on_startup=[prepare], after_shutdown=[ledger.database.close])


def _handlers(broker: RedisBroker, ledger: Ledger, idle_ms: int) -> None:
    def new(stream: str) -> StreamSub[Literal[False]]:
        return StreamSub(stream, group=GROUP, consumer=CONSUMER)

    def left(stream: str) -> StreamSub[Literal[False]]:
        return StreamSub(stream, group=GROUP, consumer=CONSUMER, min_idle_time=idle_ms)

    results = broker.publisher(stream=RESULTS)
    answering_refusals = messages.answering_refusals(ledger, _answer)

    @broker.subscriber(
        stream=new(TRANSFERS), max_workers=AT_ONCE, ack_policy=AckPolicy.NACK_ON_ERROR
    )
    @broker.subscriber(stream=left(TRANSFERS), ack_policy=AckPolicy.NACK_ON_ERROR)
    @results
    @answering_refusals
    @transactional
    async def post_transfer(body: Any) -> dict[str, str]:
        """Post a transfer: posted, posted before, or refused."""
        order = TransferIn.model_validate(body).order()
        return messages.posted(await ledger.transfer(order))

    @broker.subscriber(stream=new(ACCOUNTS), ack_policy=AckPolicy.NACK_ON_ERROR)
    @broker.subscriber(stream=left(ACCOUNTS), ack_policy=AckPolicy.NACK_ON_ERROR)
    @results
    @answering_refusals
    @transactional
    async def post_account(body: Any) -> dict[str, str]:
        """Open an account: opened, open before, or refused."""
        name = AccountIn.model_validate(body).name
        opened = await ledger.open_account(name)
        return {"name": name, "status": "opened" if opened else "open before"}


def _answer(error: Exception) -> dict[str, str]:
    body, _ = messages.refused(error)
    return {"status": "refused", **body}


if __name__ == "__main__":
    asyncio.run(create_app().run())
