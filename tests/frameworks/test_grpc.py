"""grpc.aio: a servicer's methods are decorated; the answer, or the stream's status, follows the commit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.conftest import PostgresJudge
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import write
from txkit import Database, after_completion, set_rollback_only, transactional

Context = grpc.aio.ServicerContext


class Servicer:
    """What a generated servicer's subclass looks like; requests and answers are StringValues here."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.both = SideBySide(db)
        self.later = Later(db)
        self.has_written = asyncio.Event()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    @transactional
    async def add(self, request: StringValue, context: Context) -> StringValue:
        return StringValue(value=await work(self.db, request.value))

    @transactional
    async def abort(self, request: StringValue, context: Context) -> StringValue:
        after_completion(self.ended.put_nowait)
        await write(self.db, request.value)
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing there")
        raise AssertionError

    @transactional
    async def set_code(self, request: StringValue, context: Context) -> StringValue:
        await write(self.db, request.value)
        context.set_code(grpc.StatusCode.NOT_FOUND)
        if request.value == "bad":
            set_rollback_only("not found")
        return StringValue()

    @transactional(outcome=lambda _result, error: error is None)
    async def wait(self, request: StringValue, context: Context) -> StringValue:
        after_completion(self.ended.put_nowait)
        await write(self.db, request.value)
        self.has_written.set()
        await asyncio.Event().wait()
        return StringValue()

    @transactional
    async def beside(self, request: StringValue, context: Context) -> StringValue:
        return StringValue(value=await self.both.work(request.value))

    @transactional
    async def start_later(self, request: StringValue, context: Context) -> StringValue:
        await write(self.db, request.value)
        self.later.start(f"{request.value} later")
        return StringValue()

    @transactional
    async def stream(self, request: StringValue, context: Context) -> AsyncIterator[StringValue]:
        """Answer word by word."""
        for word in request.value.split():
            yield StringValue(value=await work(self.db, word))

    @transactional
    async def answer_and_wait(
        self, request: StringValue, context: Context
    ) -> AsyncIterator[StringValue]:
        after_completion(self.ended.put_nowait)
        yield StringValue(value=await work(self.db, request.value))
        await asyncio.Event().wait()

    @transactional
    async def stream_by_hand(self, request: StringValue, context: Context) -> None:
        for word in request.value.split():
            await context.write(StringValue(value=await work(self.db, word)))

    @transactional
    async def collect(self, requests: AsyncIterator[StringValue], context: Context) -> StringValue:
        answers = [await work(self.db, request.value) async for request in requests]
        return StringValue(value=", ".join(answers))

    @transactional
    async def echo(
        self, requests: AsyncIterator[StringValue], context: Context
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=await work(self.db, request.value))


ENCODING = {
    "request_deserializer": StringValue.FromString,
    "response_serializer": StringValue.SerializeToString,
}


def encoded(text: str) -> bytes:
    return StringValue(value=text).SerializeToString()


def decoded(data: bytes) -> str:
    return StringValue.FromString(data).value


class Client:
    """A channel to a served servicer; the client's side has plain strings."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def __call__(self, kind: str, name: str, *args: Any, **options: Any) -> Any:
        make = getattr(self.channel, kind)
        return make(f"/Notes/{name}", encoded, decoded)(*args, **options)


@contextlib.asynccontextmanager
async def served(name: str, handlers: dict[str, Any]) -> AsyncIterator[grpc.aio.Channel]:
    """Serve on a port of 127.0.0.1; give a channel to it."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


@pytest.fixture
def servicer(db: Database) -> Servicer:
    return Servicer(db)


@pytest.fixture
async def client(servicer: Servicer) -> AsyncIterator[Client]:
    unary = ("add", "abort", "set_code", "wait", "beside", "start_later")
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name), **ENCODING)
        for name in unary
    }
    for name in ("stream", "answer_and_wait", "stream_by_hand"):
        method = getattr(servicer, name)
        handlers[name] = grpc.unary_stream_rpc_method_handler(method, **ENCODING)
    handlers["collect"] = grpc.stream_unary_rpc_method_handler(servicer.collect, **ENCODING)
    handlers["echo"] = grpc.stream_stream_rpc_method_handler(servicer.echo, **ENCODING)
    async with served("Notes", handlers) as channel:
        yield Client(channel)


@contextlib.contextmanager
def fails(code: grpc.StatusCode) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    assert raised.value.code() is code


async def test_answer_comes_after_the_commit(client: Client, pg: PostgresJudge) -> None:
    assert await client("unary_unary", "add", "good") == "good done"
    assert await pg.texts() == ["good"]


async def test_exception_rolls_back_and_is_the_clients_status(
    client: Client, pg: PostgresJudge
) -> None:
    with fails(grpc.StatusCode.UNKNOWN):
        await client("unary_unary", "add", "bad")
    assert await pg.texts() == []


async def test_abort_sends_the_status_and_then_rolls_back(
    client: Client, pg: PostgresJudge, servicer: Servicer
) -> None:
    with fails(grpc.StatusCode.NOT_FOUND):
        await client("unary_unary", "abort", "tea")
    async with asyncio.timeout(20):
        assert await servicer.ended.get() == "rolled_back"
    assert await pg.texts() == []


async def test_status_that_is_set_by_hand_commits_unless_the_unit_says_otherwise(
    client: Client, pg: PostgresJudge
) -> None:
    for text in ("good", "bad"):
        with fails(grpc.StatusCode.NOT_FOUND):
            await client("unary_unary", "set_code", text)
    assert await pg.texts() == ["good"]


async def test_call_that_the_client_cancels_is_rolled_back(
    client: Client, pg: PostgresJudge, servicer: Servicer
) -> None:
    call = client("unary_unary", "wait", "tea")
    async with asyncio.timeout(20):
        waiting = asyncio.ensure_future(call)
        await servicer.has_written.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await servicer.ended.get() == "rolled_back"
    assert await pg.texts() == []


async def test_call_that_runs_out_of_time_is_rolled_back(
    client: Client, pg: PostgresJudge, servicer: Servicer
) -> None:
    with fails(grpc.StatusCode.DEADLINE_EXCEEDED):
        await client("unary_unary", "wait", "tea", timeout=0.5)
    async with asyncio.timeout(20):
        assert await servicer.ended.get() == "rolled_back"
    assert await pg.texts() == []


@pytest.mark.parametrize("name", ["stream", "stream_by_hand"])
async def test_stream_is_one_unit(client: Client, pg: PostgresJudge, name: str) -> None:
    answers = client("unary_stream", name, "one two")
    assert [answer async for answer in answers] == ["one done", "two done"]
    assert await pg.texts() == ["one", "two"]
    with fails(grpc.StatusCode.UNKNOWN):
        assert [answer async for answer in client("unary_stream", name, "three bad")]
    assert await pg.texts() == ["one", "two"]


async def test_stream_that_the_client_leaves_is_rolled_back(
    client: Client, pg: PostgresJudge, servicer: Servicer
) -> None:
    call = client("unary_stream", "answer_and_wait", "one")
    assert await call.read() == "one done"
    assert await pg.texts() == []
    call.cancel()
    async with asyncio.timeout(20):
        assert await servicer.ended.get() == "rolled_back"
    assert await pg.texts() == []


async def test_requests_that_are_streamed_are_one_unit(client: Client, pg: PostgresJudge) -> None:
    async def requests(*texts: str) -> AsyncIterator[str]:
        for text in texts:
            yield text

    assert await client("stream_unary", "collect", requests("one", "two")) == "one done, two done"
    with fails(grpc.StatusCode.UNKNOWN):
        await client("stream_unary", "collect", requests("three", "bad"))
    assert await pg.texts() == ["one", "two"]


async def test_both_ways_it_commits_before_the_status(client: Client, pg: PostgresJudge) -> None:
    call = client("stream_stream", "echo")
    await call.write("one")
    assert await call.read() == "one done"
    assert await pg.texts() == []
    await call.write("two")
    await call.done_writing()
    assert await call.read() == "two done"
    assert await call.read() is grpc.aio.EOF
    assert await pg.texts() == ["one", "two"]


async def test_calls_side_by_side_do_not_meet(client: Client, pg: PostgresJudge) -> None:
    good, bad = await asyncio.gather(
        client("unary_unary", "beside", "good"),
        client("unary_unary", "beside", "bad"),
        return_exceptions=True,
    )
    assert good == "good done"
    assert isinstance(bad, grpc.aio.AioRpcError)
    assert await pg.texts() == ["good"]


async def test_task_that_outlives_the_call_has_its_own_unit(
    client: Client, pg: PostgresJudge, servicer: Servicer
) -> None:
    await client("unary_unary", "start_later", "tea")
    assert await pg.texts() == ["tea"]
    await servicer.later.finish()
    assert await pg.texts() == ["tea", "tea later"]


async def test_method_without_a_decorator_is_told(db: Database, pg: PostgresJudge) -> None:
    """The server is compiled: it has no frames, and its coroutine tells whose it is."""
    transfer = Transfer(db, pg)

    async def add(request: bytes, context: Context) -> bytes:
        await transfer.debit()
        await transfer.credit()
        return b"done"

    handlers = {"add": grpc.unary_unary_rpc_method_handler(add)}
    async with served("Notes", handlers) as channel:
        with transfer.is_told("add"):
            assert await channel.unary_unary("/Notes/add")(b"") == b"done"
    assert await pg.texts() == ["debit", "credit"]
