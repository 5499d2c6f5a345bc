"""aiohttp, behind its own server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import PostgresJudge
from tests.frameworks.web import (
    AnswerContract,
    BackgroundContract,
    Front,
    Services,
    SideBySideContract,
    StreamContract,
    UndecoratedContract,
    WebSocketContract,
    front_of,
    services,
)
from tests.notes import Boom
from txkit import after_commit, transactional

__all__ = ["services"]

ERRORS: dict[int, type[web.HTTPException]] = {
    404: web.HTTPNotFound,
    409: web.HTTPConflict,
    503: web.HTTPServiceUnavailable,
}


def application(services: Services) -> web.Application:
    routes = web.RouteTableDef()
    background: set[asyncio.Task[None]] = set()

    def has_ended(task: asyncio.Task[None]) -> None:
        background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever has a log tells it there

    @routes.post("/notes/{text}")
    @transactional
    async def post_note(request: web.Request) -> web.Response:
        text = request.match_info["text"]
        await services.write(text)
        try:
            times = int(request.query.get("times", "1"))
        except ValueError:
            raise web.HTTPUnprocessableEntity(text="times is a number") from None
        await services.write(text, times - 1)
        return web.json_response({"text": text, "times": times}, status=201)

    @routes.post("/apart/{text}")
    async def apart(request: web.Request) -> web.Response:
        await services.apart(request.match_info["text"])
        return web.json_response({})

    @routes.post("/fails/{text}")
    @transactional
    async def fails(request: web.Request) -> web.Response:
        await services.write(request.match_info["text"])
        raise Boom

    @routes.post("/raises/{status}/{text}")
    @transactional
    async def raises(request: web.Request) -> web.Response:
        await services.write(request.match_info["text"])
        raise ERRORS[int(request.match_info["status"])]

    @routes.post("/returns/{status}/{text}")
    @transactional
    async def returns(request: web.Request) -> web.Response:
        await services.write(request.match_info["text"])
        return web.Response(status=int(request.match_info["status"]))

    @routes.post("/redirects/{text}")
    @transactional
    async def redirects(request: web.Request) -> web.Response:
        await services.write(request.match_info["text"])
        raise web.HTTPSeeOther("/elsewhere")

    @routes.post("/redirected/{text}")
    @transactional
    async def redirected(request: web.Request) -> web.Response:
        await services.write(request.match_info["text"])
        return web.Response(status=303, headers={"Location": "/elsewhere"})

    @routes.post("/waits/{text}")
    @transactional
    async def waits(request: web.Request) -> web.Response:
        text = request.match_info["text"]
        await services.write(text)
        await services.meetings[text].wait()
        return web.Response(text="done")

    @routes.post("/stream/{text}")
    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async with aclosing(services.lines(request.match_info["text"])) as lines:  # type: ignore[type-var]
            async for line in lines:
                await answer.write(line.encode())
        return answer

    @routes.post("/later/{text}")
    @transactional
    async def later(request: web.Request) -> web.Response:
        text = request.match_info["text"]
        await services.write(f"{text} now")

        @after_commit
        def begin() -> None:
            task = asyncio.create_task(services.later(text))
            background.add(task)
            task.add_done_callback(has_ended)

        return web.Response()

    @routes.get("/ws")
    async def messages(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            try:
                await socket.send_str(await services.message(message.data))
            except Boom:
                await socket.send_str("refused")
        return socket

    app = web.Application()
    app.add_routes(routes)
    return app


@contextlib.asynccontextmanager
async def aiohttp_server(app: web.Application, **options: Any) -> AsyncIterator[int]:
    """Serve on a free port of loopback; give the port."""
    runner = web.AppRunner(app, shutdown_timeout=1, **options)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def front(services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with aiohttp_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    """A handler reads and checks its arguments itself."""


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestSideBySideWithHandlerCancellation(SideBySideContract):
    on_disconnect = "is cancelled"

    @pytest.fixture
    async def front(self, services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
        app = application(services)
        async with (
            aiohttp_server(app, handler_cancellation=True) as port,
            front_of(port, services, pg) as one,
        ):
            yield one


class TestStreams(StreamContract):
    """StreamResponse, written by the handler."""


class TestBackground(BackgroundContract):
    """aiohttp has none: a task that an after_commit hook makes, kept in a set."""


class TestWebSocket(WebSocketContract):
    """The handler lasts, each message is a unit."""
