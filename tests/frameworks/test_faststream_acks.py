"""FastStream: a message is acknowledged, and its reply published, when its unit has committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from faststream import AckPolicy, BaseMiddleware
from faststream.exceptions import AckMessage, NackMessage, RejectMessage, SkipMessage
from faststream.redis import RedisBroker, StreamSub, TestRedisBroker

from tests.conftest import PostgresJudge
from tests.frameworks.fake_redis import redis_server
from tests.frameworks.work import work
from tests.notes import Boom, write
from txkit import Database, after_commit, transactional

Seen = list[tuple[str, list[str]]]


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


async def test_over_a_connection_the_answer_comes_after_the_commit(
    db: Database, pg: PostgresJudge
) -> None:
    with redis_server() as port:
        broker = RedisBroker(f"redis://127.0.0.1:{port}")

        @broker.subscriber("in")
        @transactional
        async def handle(text: str) -> str:
            return await work(db, text)

        async with broker:
            await broker.start()
            answer = await broker.request("good", "in", timeout=20)
            assert await answer.decode() == "good done"
            assert await pg.texts() == ["good"]
