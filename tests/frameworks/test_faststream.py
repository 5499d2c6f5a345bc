"""FastStream: a handler that is decorated is parsed, injected and run as one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from faststream import Context, Depends, FastStream
from faststream.redis import RedisBroker, RedisMessage, TestRedisBroker
from pydantic import BaseModel, ValidationError

from tests.conftest import PostgresJudge
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, in_transaction, transactional


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
