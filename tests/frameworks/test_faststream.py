"""FastStream: a message is acknowledged, and its reply published, when its unit has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from faststream import AckPolicy, BaseMiddleware, Context, Depends, FastStream
from faststream.exceptions import AckMessage, NackMessage, RejectMessage, SkipMessage
from faststream.redis import RedisBroker, RedisMessage, StreamSub, TestRedisBroker
from pydantic import BaseModel, ValidationError

from tests.conftest import PostgresJudge
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, after_commit, in_transaction, transactional

Seen = list[tuple[str, list[str]]]


class Note(BaseModel):
    text: str
    stars: int = 0


def shout(note: Note) -> str:
    return note.text.upper()


async def handler(
    note: Note,
    loud: Annotated[str, Depends(shout)],
    message: RedisMessage,
    app: Annotated[Any, Context()],
) -> str:
    """Take a note."""
    return f"{note!r} {loud} {type(message).__name__} {app}"


def watched(pg: PostgresJudge, seen: Seen) -> Callable[..., Awaitable[Any]]:
    """A parser whose messages tell what is committed when they are acknowledged."""

    async def parse(raw: Any, parse_as_usual: Callable[[Any], Awaitable[Any]]) -> Any:
        message = await parse_as_usual(raw)

        class Watched(type(message)):  # type: ignore[misc]
            async def ack(self, **options: Any) -> None:
                seen.append(("ack", await pg.texts()))
                await super().ack(**options)

            async def nack(self, **options: Any) -> None:
                seen.append(("nack", await pg.texts()))
                await super().nack(**options)

            async def reject(self, **options: Any) -> None:
                seen.append(("reject", await pg.texts()))
                await super().reject(**options)

        message.__class__ = Watched
        return message

    return parse


def stream(broker: RedisBroker, **options: Any) -> Any:
    """A subscriber whose messages are acknowledged."""
    return broker.subscriber(stream=StreamSub("in", group="group", consumer="one"), **options)


def test_schema_is_that_of_the_undecorated_handler() -> None:
    def schema(function: Callable[..., Any]) -> Any:
        broker = RedisBroker()
        broker.publisher("out")(broker.subscriber("in")(function))
        return FastStream(broker).schema.to_specification().to_jsonable()

    assert "stars" in str(schema(handler))
    assert schema(transactional(handler)) == schema(handler)


@pytest.mark.parametrize("body", [{"text": "tea", "stars": "3"}, {"stars": "many"}], ids=str)
async def test_message_is_parsed_and_refused_as_without_the_decorator(body: dict[str, Any]) -> None:
    answers: list[object] = []
    for function in (handler, transactional(handler)):
        broker = RedisBroker()
        broker.subscriber("in")(function)
        broker.context.set_global("app", "the app")
        async with TestRedisBroker(broker):
            try:
                answers.append(await (await broker.request(body, "in")).decode())
            except ValidationError as error:
                answers.append(error.errors(include_url=False))
    assert answers[0] == answers[1]
    assert "many" in str(answers[0]) or "stars=3) TEA RedisChannelMessage the app" in str(
        answers[0]
    )


async def test_reply_and_acknowledgement_come_after_the_commit(
    db: Database, pg: PostgresJudge
) -> None:
    seen: Seen = []

    class Watching(BaseMiddleware[Any, Any]):
        async def publish_scope(self, call_next: Any, command: Any) -> Any:
            if command.destination == "out":
                seen.append((f"publish {command.body}", await pg.texts()))
            return await call_next(command)

    broker = RedisBroker(middlewares=[Watching])

    @broker.publisher("out")
    @stream(broker, parser=watched(pg, seen))
    @transactional
    async def handle(text: str) -> str:
        await write(db, text)
        await broker.publish("hasty", "out")
        after_commit(lambda: broker.publish("hook", "out"))
        return "answer"

    async with TestRedisBroker(broker):
        await broker.publish("tea", stream="in")
    assert seen == [
        ("publish hasty", []),
        ("publish hook", ["tea"]),
        ("publish answer", ["tea"]),
        ("ack", ["tea"]),
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Boom(), "reject"),
        (NackMessage(), "nack"),
        (RejectMessage(), "reject"),
        (AckMessage(), "ack"),
        (SkipMessage(), None),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_what_leaves_as_an_exception_rolls_back_and_is_told_to_the_broker(
    db: Database, pg: PostgresJudge, error: Exception, told: str | None
) -> None:
    seen: Seen = []
    broker = RedisBroker()

    @stream(broker, parser=watched(pg, seen))
    @transactional
    async def handle(text: str) -> None:
        await write(db, text)
        raise error

    async with TestRedisBroker(broker):
        if isinstance(error, Boom):
            with pytest.raises(Boom):
                await broker.publish("tea", stream="in")
        else:
            await broker.publish("tea", stream="in")
    assert seen == ([(told, [])] if told else [])
    assert await pg.texts() == []


async def test_exception_that_commits_by_a_rule_does_so_before_the_acknowledgement(
    db: Database, pg: PostgresJudge
) -> None:
    seen: Seen = []
    broker = RedisBroker()

    @stream(broker, parser=watched(pg, seen))
    @transactional(no_rollback_for=AckMessage)
    async def handle(text: str) -> None:
        await write(db, text)
        raise AckMessage

    async with TestRedisBroker(broker):
        await broker.publish("tea", stream="in")
    assert seen == [("ack", ["tea"])]


async def test_policy_of_the_subscriber_hears_of_the_exception(
    db: Database, pg: PostgresJudge
) -> None:
    seen: Seen = []
    broker = RedisBroker()

    @stream(broker, parser=watched(pg, seen), ack_policy=AckPolicy.NACK_ON_ERROR)
    @transactional
    async def handle(text: str) -> str:
        return await work(db, text)

    async with TestRedisBroker(broker):
        await broker.publish("good", stream="in")
        with pytest.raises(Boom):
            await broker.publish("bad", stream="in")
    assert seen == [("ack", ["good"]), ("nack", ["good"])]


async def test_bound_method_is_a_handler(db: Database, pg: PostgresJudge) -> None:
    class Notes:
        def __init__(self, db: Database) -> None:
            self.db = db

        @transactional
        async def handle(self, text: str, times: int) -> str:
            for _ in range(times):
                await write(self.db, text)
            return text

    broker = RedisBroker()
    broker.subscriber("in")(Notes(db).handle)
    async with TestRedisBroker(broker):
        await broker.publish({"text": "tea", "times": "2"}, "in")
    assert await pg.texts() == ["tea", "tea"]


async def test_dependency_is_a_unit_of_its_own(db: Database, pg: PostgresJudge) -> None:
    @transactional
    async def remember(text: str) -> str:
        await write(db, f"dependency of {text}")
        return text

    broker = RedisBroker()

    @broker.subscriber("in")
    @transactional
    async def handle(text: str, remembered: Annotated[str, Depends(remember)]) -> None:
        assert await pg.texts() == [f"dependency of {remembered}"]
        await work(db, text)

    async with TestRedisBroker(broker):
        with pytest.raises(Boom):
            await broker.publish("bad", "in")
    assert await pg.texts() == ["dependency of bad"]


async def test_messages_side_by_side_do_not_meet(db: Database, pg: PostgresJudge) -> None:
    broker = RedisBroker()
    broker.subscriber("in")(transactional(SideBySide(db).work))
    async with TestRedisBroker(broker):
        good, bad = await asyncio.gather(
            broker.request("good", "in"), broker.request("bad", "in"), return_exceptions=True
        )
    assert await good.decode() == "good done"  # type: ignore[union-attr]
    assert isinstance(bad, Boom)
    assert await pg.texts() == ["good"]


async def test_cancelled_message_is_rolled_back(db: Database, pg: PostgresJudge) -> None:
    has_written = asyncio.Event()
    broker = RedisBroker()

    @broker.subscriber("in")
    @transactional
    async def handle(text: str) -> None:
        await write(db, text)
        has_written.set()
        await asyncio.Event().wait()

    async with TestRedisBroker(broker):
        task = asyncio.create_task(broker.publish("tea", "in"))
        async with asyncio.timeout(20):
            await has_written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await pg.texts() == []


async def test_task_that_outlives_the_message_has_its_own_unit(
    db: Database, pg: PostgresJudge
) -> None:
    later = Later(db)
    broker = RedisBroker()

    @broker.subscriber("in")
    @transactional
    async def handle(text: str) -> None:
        await write(db, text)
        later.start(f"{text} later")

    async with TestRedisBroker(broker):
        await broker.publish("tea", "in")
        assert not in_transaction()
        assert await pg.texts() == ["tea"]
        await later.finish()
    assert await pg.texts() == ["tea", "tea later"]


async def test_handler_without_a_decorator_is_told(db: Database, pg: PostgresJudge) -> None:
    transfer = Transfer(db, pg)
    broker = RedisBroker()

    @broker.subscriber("in")
    async def handle(text: str) -> None:
        await transfer.debit()
        await transfer.credit()

    async with TestRedisBroker(broker):
        with transfer.is_told("handle"):
            await broker.publish("tea", "in")
    assert await pg.texts() == ["debit", "credit"]
