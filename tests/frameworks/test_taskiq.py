"""taskiq: a result is stored, and the message acknowledged, when the task's unit has committed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from taskiq import (
    AckableMessage,
    AsyncBroker,
    BrokerMessage,
    Context,
    InMemoryBroker,
    SimpleRetryMiddleware,
    TaskiqDepends,
    TaskiqResult,
)
from taskiq.api import run_receiver_task
from taskiq.brokers.inmemory_broker import InmemoryResultBackend
from taskiq.exceptions import NoResultError, TaskRejectedError
from taskiq.receiver import Receiver

from tests.conftest import PostgresJudge
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, after_commit, transactional

Seen = list[tuple[str, list[str]]]


class QueueBroker(AsyncBroker):
    """A broker whose messages are acknowledged; both ends tell what is committed then."""

    def __init__(self, pg: PostgresJudge) -> None:
        super().__init__()
        self.pg = pg
        self.seen: Seen = []
        self.told = asyncio.Event()
        self.one_at_a_time = asyncio.Lock()
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.result_backend = Results(self)

    async def kick(self, message: BrokerMessage) -> None:
        await self.queue.put(message.message)

    async def listen(self) -> AsyncIterator[AckableMessage]:  # type: ignore[override]
        while True:
            yield AckableMessage(data=await self.queue.get(), ack=self.ack)

    async def ack(self) -> None:
        await self.look("ack")
        self.told.set()

    async def look(self, moment: str) -> None:
        async with self.one_at_a_time:  # the judge is one connection
            self.seen.append((moment, await self.pg.texts()))


class Results(InmemoryResultBackend[Any]):
    def __init__(self, broker: QueueBroker) -> None:
        super().__init__()
        self.broker = broker

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        told = repr(result.error) if result.is_err else result.return_value
        await self.broker.look(f"result {told}")
        await super().set_result(task_id, result)


@contextlib.asynccontextmanager
async def working(broker: AsyncBroker) -> AsyncIterator[None]:
    """Let a worker's receiver listen meanwhile."""
    receiver = asyncio.create_task(run_receiver_task(broker))
    yield
    receiver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiver


class Note(BaseModel):
    text: str
    stars: int = 0


def shout(context: Annotated[Context, TaskiqDepends()]) -> str:
    return context.message.task_name.upper()


async def take(note: Note, count: int, name: Annotated[str, TaskiqDepends(shout)]) -> str:
    """Take a note."""
    return f"{note!r} {count!r} {name}"


async def test_parameters_are_those_of_the_undecorated_task() -> None:
    results: list[object] = []
    for function in (take, transactional(take)):
        broker = InMemoryBroker()
        task = broker.task("take")(function)
        receiver = Receiver(broker, max_async_tasks=1)
        sent = await task.kiq({"text": "tea", "stars": "3"}, "2")  # type: ignore[call-arg, arg-type]
        result = await sent.wait_result(timeout=5)
        views = (receiver.task_signatures, receiver.task_hints)
        results.append((result.return_value, views, task.__doc__, task.return_type))
    assert "Note(text='tea', stars=3) 2 TAKE" in str(results[0])
    assert results[0] == results[1]


async def test_result_and_acknowledgement_come_after_the_commit(
    db: Database, pg: PostgresJudge
) -> None:
    broker = QueueBroker(pg)

    @broker.task
    @transactional
    async def take(text: str) -> str:
        return await work(db, text)

    async with working(broker):
        await take.kiq("good")
        await broker.told.wait()
        broker.told.clear()
        await take.kiq("bad")
        await broker.told.wait()
    after = ["good"]
    assert broker.seen == [
        ("result good done", after),
        ("ack", after),
        ("result Boom('bad')", after),
        ("ack", after),
    ]


@pytest.mark.parametrize("error", [NoResultError(), TaskRejectedError(), Boom()], ids=repr)
async def test_what_leaves_as_an_exception_rolls_back(
    db: Database, pg: PostgresJudge, error: Exception
) -> None:
    broker = QueueBroker(pg)

    @broker.task
    @transactional
    async def take(text: str) -> None:
        await write(db, text)
        raise error

    async with working(broker):
        await take.kiq("tea")
        await broker.told.wait()
    assert broker.seen[-1] == ("ack", [])
    assert len(broker.seen) == (1 if isinstance(error, NoResultError) else 2)


async def test_requeued_task_runs_again_in_a_new_unit(db: Database, pg: PostgresJudge) -> None:
    broker = QueueBroker(pg)

    @broker.task
    @transactional
    async def take(text: str, context: Annotated[Context, TaskiqDepends()]) -> None:
        count = context.message.labels.get("X-Taskiq-requeue", "0")
        await write(db, f"{text} {count}")
        if count == "0":
            await context.requeue()

    async with working(broker):
        await take.kiq("tea")  # type: ignore[call-arg]
        while len(broker.seen) < 3:
            await broker.told.wait()
            broker.told.clear()
    assert [one for one in broker.seen if one[0] != "ack"] == [("result None", ["tea 1"])]
    assert await pg.texts() == ["tea 1"]


async def test_retry_runs_in_a_new_unit(db: Database, pg: PostgresJudge) -> None:
    broker = InMemoryBroker(await_inplace=True).with_middlewares(SimpleRetryMiddleware())
    seen: list[list[str]] = []

    @broker.task(retry_on_error=True)
    @transactional
    async def take(text: str) -> None:
        seen.append(await pg.texts())
        await write(db, f"{text} {len(seen)}")
        if len(seen) == 1:
            raise Boom

    await take.kiq("try")
    assert seen == [[], []]
    assert await pg.texts() == ["try 2"]


async def test_dependency_is_a_unit_of_its_own(db: Database, pg: PostgresJudge) -> None:
    broker = InMemoryBroker(await_inplace=True)

    @transactional
    async def remember() -> str:
        await write(db, "dependency")
        return "remembered"

    @broker.task
    @transactional
    async def take(text: str, remembered: str = TaskiqDepends(remember)) -> None:
        assert await pg.texts() == ["dependency"]
        await write(db, f"{text} {remembered}")
        raise Boom

    await take.kiq("tea")
    assert await pg.texts() == ["dependency"]


async def test_tasks_side_by_side_do_not_meet(db: Database, pg: PostgresJudge) -> None:
    broker = InMemoryBroker()
    both = SideBySide(db)

    @broker.task
    @transactional
    async def take(text: str) -> str:
        return await both.work(text)

    good, bad = await take.kiq("good"), await take.kiq("bad")
    assert (await good.wait_result(timeout=10)).return_value == "good done"
    assert isinstance((await bad.wait_result(timeout=10)).error, Boom)
    assert await pg.texts() == ["good"]


async def test_timeout_of_the_task_rolls_back(db: Database, pg: PostgresJudge) -> None:
    broker = InMemoryBroker(await_inplace=True)

    @broker.task(timeout=0.2)
    @transactional
    async def take(text: str) -> None:
        await write(db, text)
        await asyncio.Event().wait()

    sent = await take.kiq("tea")
    assert isinstance((await sent.get_result()).error, TimeoutError)
    assert await pg.texts() == []


async def test_task_that_outlives_the_message_has_its_own_unit(
    db: Database, pg: PostgresJudge
) -> None:
    later = Later(db)
    broker = InMemoryBroker(await_inplace=True)

    @broker.task
    @transactional
    async def take(text: str) -> None:
        await write(db, text)
        later.start(f"{text} later")

    await take.kiq("tea")
    assert await pg.texts() == ["tea"]
    await later.finish()
    assert await pg.texts() == ["tea", "tea later"]


async def test_task_kicked_by_a_hook_is_a_unit_of_its_own_and_one_kicked_inside_joins_in_place(
    db: Database, pg: PostgresJudge
) -> None:
    broker = InMemoryBroker(await_inplace=True)
    seen: Seen = []

    @broker.task
    @transactional
    async def take(text: str) -> None:
        seen.append((text, await pg.texts()))
        await write(db, text)

    @transactional
    async def unit(fails: bool) -> None:
        await write(db, "unit")
        after_commit(lambda: take.kiq("by the hook"))
        if fails:
            await take.kiq("inside")
            raise Boom

    await unit(False)
    assert await pg.texts() == ["unit", "by the hook"]
    with pytest.raises(Boom):
        await unit(True)
    assert await pg.texts() == ["unit", "by the hook"]
    assert seen == [("by the hook", ["unit"]), ("inside", ["unit", "by the hook"])]


@pytest.mark.parametrize("labels", [{}, {"timeout": 20}], ids=str)
async def test_task_without_a_decorator_is_told(
    db: Database, pg: PostgresJudge, labels: dict[str, Any]
) -> None:
    transfer = Transfer(db, pg)
    broker = InMemoryBroker()

    @broker.task(**labels)
    async def take() -> None:
        await transfer.debit()
        await transfer.credit()

    with transfer.is_told("take"):
        await (await take.kiq()).wait_result(timeout=10)
    assert await pg.texts() == ["debit", "credit"]
