"""What every web framework must do with a handler that is decorated directly.

A module per framework builds an application with the routes below out of the services
here, serves it on loopback in the test's own loop, and inherits the contracts. Each
route writes a note through a joined service, and the judge's connection looks on.

    POST /notes/TEXT?times=N     writes it N times (an int, 1 if left out): {"text": TEXT, "times": N}
    POST /apart/TEXT             has no decorator, calls Services.apart
    POST /fails/TEXT             writes, raises Boom
    POST /raises/STATUS/TEXT     writes, raises the framework's HTTP error
    POST /returns/STATUS/TEXT    writes, returns a response of that status
    POST /redirects/TEXT         writes, and redirects by what the framework raises for it
    POST /redirected/TEXT        writes, and redirects by what it returns for it
    POST /waits/TEXT             writes, meets the test, answers "done"
    POST /stream/TEXT            a body made by a decorated generator (Services.lines)
    POST /later/TEXT             writes "TEXT now"; Services.later(TEXT) runs after the response
    WS   /ws                     Services.message for every message
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal

import httpx
import pytest
import websockets

from tests.conftest import PostgresJudge
from tests.notes import Boom, count, write
from txkit import Database, DevelopmentWarning, transactional

SLOW_COMMIT = """
CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION take_time();
"""
"""COMMIT takes a while: who answers before it is caught."""


class Meeting:
    """Where a handler waits for the test, which tells it to go on, or to fail."""

    def __init__(self) -> None:
        self._is_there = asyncio.Event()
        self._go_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Be there, and wait for the word (a handler)."""
        self._is_there.set()
        await asyncio.shield(self._go_on)

    async def come(self) -> None:
        """Wait until somebody is there (the test)."""
        await self._is_there.wait()

    def go_on(self) -> None:
        """Let it go on."""
        if not self._go_on.done():
            self._go_on.set_result(None)

    def fail(self) -> None:
        """Let it fail."""
        self._go_on.set_exception(Boom())


class Services:
    """What the handlers call, with a place to meet for each text."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.meetings: dict[str, Meeting] = defaultdict(Meeting)

    @transactional
    async def write(self, text: str, times: int = 1) -> None:
        """Write it; joins the handler's unit."""
        for _ in range(times):
            await write(self.db, text)

    async def apart(self, text: str) -> None:
        """Call two services one after the other; whose handler has no decorator has two units."""
        await self.write(text)
        await self.message(text)

    @transactional
    async def later(self, text: str) -> None:
        """Background work: a unit of its own."""
        await self.write(f"{text} later")
        await self.meetings[text].wait()

    @transactional
    async def lines(self, text: str) -> AsyncIterator[str]:
        """A streamed body: writes, gives a line, meets the test, gives many more."""
        await self.write(text)
        yield "first\n"
        await self.meetings[text].wait()
        for number in range(100):  # reads between the lines, as an export does
            yield f"{number} {await count(self.db)} {'x' * 10_000}\n"

    @transactional
    async def message(self, text: str) -> str:
        """Answer a message of a WebSocket, in a unit of its own."""
        await self.write(text)
        if text == "bad":
            raise Boom
        return f"wrote {text}"


class Front:
    """An application that is being served, and what the tests ask of it."""

    def __init__(self, port: int, services: Services, judge: PostgresJudge) -> None:
        self.port = port
        self.services = services
        self.judge = judge
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)

    async def post(self, path: str) -> httpx.Response:
        return await self.client.post(path)

    async def texts(self) -> list[str]:
        return await self.judge.texts()

    async def texts_at_first_byte(self, path: str) -> list[str]:
        """Post, and look what is committed when the first byte of the answer is on the socket."""
        async with self.connection(path) as reader:
            assert await reader.readexactly(1) == b"H"
            return await self.texts()

    @contextlib.asynccontextmanager
    async def connection(self, path: str) -> AsyncIterator[asyncio.StreamReader]:
        """Post on a socket of one's own, which is closed at the end, read or not."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n".encode())
        try:
            yield reader
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def quiet(self) -> None:
        """Wait until no connection is in use, and the server has ended every transaction."""
        pool: Any = (await self.services.db.engine()).pool
        async with asyncio.timeout(10):
            while pool.checkedout() or {s for _, s in await self.judge.backends()} - {"idle"}:
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def front_of(port: int, services: Services, judge: PostgresJudge) -> AsyncIterator[Front]:
    """Give the front; let go whoever still waits at its end."""
    front = Front(port, services, judge)
    try:
        async with front.client:
            yield front
    finally:
        for meeting in services.meetings.values():
            meeting.go_on()


@pytest.fixture
async def services(db: Database) -> Services:
    return Services(db)


class AnswerContract:
    """Plain requests: ``front`` is a fixture of the module."""

    refuses_arguments: ClassVar[int] = 422

    async def test_commit_precedes_the_first_byte(self, front: Front) -> None:
        await front.judge.connection.execute(SLOW_COMMIT)
        assert await front.texts_at_first_byte("/notes/kept") == ["kept"]

    async def test_arguments_arrive_typed(self, front: Front) -> None:
        answer = await front.post("/notes/tea?times=2")
        assert answer.status_code in {200, 201}
        assert answer.json() == {"text": "tea", "times": 2}
        assert await front.texts() == ["tea", "tea"]

    async def test_arguments_that_are_refused_leave_nothing(self, front: Front) -> None:
        answer = await front.post("/notes/tea?times=many")
        assert answer.status_code == self.refuses_arguments
        assert await front.texts() == []

    async def test_exception_rolls_back(self, front: Front) -> None:
        assert (await front.post("/fails/lost")).status_code == 500
        assert await front.texts() == []
        assert (await front.post("/notes/kept")).status_code in {200, 201}
        assert await front.texts() == ["kept"]

    @pytest.mark.parametrize("way", ["raises", "returns"])
    @pytest.mark.parametrize("status", [404, 409, 503])
    async def test_error_status_rolls_back(self, front: Front, way: str, status: int) -> None:
        assert (await front.post(f"/{way}/{status}/lost")).status_code == status
        assert await front.texts() == []

    async def test_good_status_commits(self, front: Front) -> None:
        assert (await front.post("/returns/202/kept")).status_code == 202
        assert await front.texts() == ["kept"]

    @pytest.mark.parametrize("way", ["redirects", "redirected"])
    async def test_redirect_commits(self, front: Front, way: str) -> None:
        answer = await front.post(f"/{way}/kept")
        assert 300 <= answer.status_code < 400
        assert answer.headers["location"].endswith("/elsewhere")
        assert await front.texts() == ["kept"]


class UndecoratedContract:
    """The development mode tells of a handler without a decorator: ``/apart``."""

    async def test_handler_without_a_decorator_is_told(self, front: Front) -> None:
        told = r"test_\w+\.\S+, which a framework called, has no decorator, and .*Services\.write and .*Services\.message, which"
        with pytest.warns(DevelopmentWarning, match=told):
            assert (await front.post("/apart/twice")).status_code < 300
        assert await front.texts() == ["twice", "twice"]


class SideBySideContract:
    """Requests in flight at the same time, and clients that go away."""

    on_disconnect: ClassVar[Literal["goes on", "is cancelled"]]

    async def test_two_requests_do_not_meet(self, front: Front) -> None:
        meetings = front.services.meetings
        async with asyncio.TaskGroup() as both:
            lost = both.create_task(front.post("/waits/lost"))
            kept = both.create_task(front.post("/waits/kept"))
            await meetings["lost"].come()
            await meetings["kept"].come()
            assert await front.texts() == []
            states = [state for _, state in await front.judge.backends()]
            assert states == ["idle in transaction"] * 2
            meetings["lost"].fail()
            assert (await lost).status_code == 500
            meetings["kept"].go_on()
            assert (await kept).status_code == 200
        assert await front.texts() == ["kept"]

    async def test_client_that_goes_away(self, front: Front) -> None:
        meeting = front.services.meetings["gone"]
        async with front.connection("/waits/gone"):
            await meeting.come()
        if self.on_disconnect == "goes on":
            meeting.go_on()
        await front.quiet()
        assert await front.texts() == (["gone"] if self.on_disconnect == "goes on" else [])
        assert (await front.post("/notes/next")).status_code in {200, 201}


class StreamContract:
    """A body made by a decorated generator: its unit lasts as long as the body."""

    async def test_stream_commits_when_it_is_exhausted(self, front: Front) -> None:
        async with front.client.stream("POST", "/stream/kept") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "first"
            assert await front.texts() == []
            front.services.meetings["kept"].go_on()
            assert len([line async for line in lines]) == 100
        await front.quiet()
        assert await front.texts() == ["kept"]

    async def test_client_that_leaves_early_rolls_it_back(self, front: Front) -> None:
        async with front.client.stream("POST", "/stream/lost") as answer:
            assert await anext(answer.aiter_lines()) == "first"
        front.services.meetings["lost"].go_on()
        await front.quiet()
        assert await front.texts() == []

    async def test_stream_that_fails_rolls_back(self, front: Front) -> None:
        with pytest.raises(httpx.HTTPError):
            async with front.client.stream("POST", "/stream/lost") as answer:
                async for _ in answer.aiter_lines():
                    front.services.meetings["lost"].fail()
        await front.quiet()
        assert await front.texts() == []


class BackgroundContract:
    """Work after the response, in a unit of its own."""

    async def test_background_work_has_its_own_unit(self, front: Front) -> None:
        meeting = front.services.meetings["tea"]
        assert await front.texts_at_first_byte("/later/tea") == ["tea now"]
        await meeting.come()
        assert await front.texts() == ["tea now"]
        meeting.go_on()
        await front.quiet()
        assert await front.texts() == ["tea now", "tea later"]

    async def test_background_work_that_fails_loses_its_own(self, front: Front) -> None:
        meeting = front.services.meetings["tea"]
        assert await front.texts_at_first_byte("/later/tea") == ["tea now"]
        await meeting.come()
        meeting.fail()
        await front.quiet()
        assert await front.texts() == ["tea now"]


class WebSocketContract:
    """Every message is a unit."""

    async def test_message_is_committed_before_it_is_answered(self, front: Front) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/ws") as socket:
            await socket.send("tea")
            assert await socket.recv() == "wrote tea"
            assert await front.texts() == ["tea"]
            await socket.send("bad")
            assert await socket.recv() == "refused"
            assert await front.texts() == ["tea"]
            await socket.send("milk")
            assert await socket.recv() == "wrote milk"
        assert await front.texts() == ["tea", "milk"]
