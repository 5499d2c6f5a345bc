"""Sanic, behind its own server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from sanic import HTTPResponse, Request, Sanic, Websocket, empty, json, redirect, text
from sanic.application.constants import ServerStage
from sanic.application.state import ApplicationServerInfo
from sanic.exceptions import BadRequest, SanicException

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

NUMBERS = itertools.count(1)


def sanic() -> Sanic[Any, Any]:
    """Make an application of a name of its own, as Sanic wants it."""
    app: Sanic[Any, Any] = Sanic(f"notes_{next(NUMBERS)}", configure_logging=False)
    app.config.TOUCHUP = False  # it rewrites Sanic's methods, once in a process
    return app


def application(services: Services) -> Sanic[Any, Any]:
    app = sanic()

    @app.post("/notes/<words:str>")
    @transactional
    async def post_note(request: Request, words: str) -> HTTPResponse:
        await services.write(words)
        try:
            times = int(request.args.get("times", "1"))
        except ValueError:
            raise BadRequest("times is a number") from None
        await services.write(words, times - 1)
        return json({"text": words, "times": times}, status=201)

    @app.post("/apart/<words:str>")
    async def apart(_: Request, words: str) -> HTTPResponse:
        await services.apart(words)
        return json({})

    @app.post("/fails/<words:str>")
    @transactional
    async def fails(_: Request, words: str) -> HTTPResponse:
        await services.write(words)
        raise Boom

    @app.post("/raises/<status:int>/<words:str>")
    @transactional
    async def raises(_: Request, status: int, words: str) -> HTTPResponse:
        await services.write(words)
        raise SanicException(status_code=status)

    @app.post("/returns/<status:int>/<words:str>")
    @transactional
    async def returns(_: Request, status: int, words: str) -> HTTPResponse:
        await services.write(words)
        return empty(status)

    @app.post("/redirects/<words:str>")
    @transactional
    async def redirects(_: Request, words: str) -> HTTPResponse:
        await services.write(words)
        raise SanicException(status_code=303, headers={"location": "/elsewhere"})

    @app.post("/redirected/<words:str>")
    @transactional
    async def redirected(_: Request, words: str) -> HTTPResponse:
        await services.write(words)
        return redirect("/elsewhere", status=303)

    @app.post("/waits/<words:str>")
    @transactional
    async def waits(_: Request, words: str) -> HTTPResponse:
        await services.write(words)
        await services.meetings[words].wait()
        return text("done")

    @app.post("/stream/<words:str>")
    async def stream(request: Request, words: str) -> None:
        response: Any = await request.respond(content_type="text/plain")
        try:
            async with aclosing(services.lines(words)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await response.send(line)
        except Boom:
            request.transport.close()  # else Sanic would end the body well
            raise

    @app.post("/later/<words:str>")
    @transactional
    async def later(_: Request, words: str) -> HTTPResponse:
        await services.write(f"{words} now")

        async def in_background() -> None:
            with contextlib.suppress(Boom):  # whoever has a log tells it there
                await services.later(words)

        @after_commit
        def begin() -> None:  # no lambda: the task that it returns would be awaited
            app.add_task(in_background())

        return empty()

    @app.websocket("/ws")
    async def messages(_: Request, socket: Websocket) -> None:
        async for words in socket:
            try:
                await socket.send(await services.message(str(words)))
            except Boom:
                await socket.send("refused")

    return app


@contextlib.asynccontextmanager
async def sanic_server(app: Sanic[Any, Any]) -> AsyncIterator[int]:
    """Serve on a free port of loopback, in this loop; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server: Any = await app.create_server(
            sock=listener, access_log=False, return_asyncio_server=True
        )
        await server.startup()
        await server.start_serving()
        # As app.run() notes it: add_task() asks whether somebody serves.
        app.state.server_info.append(ApplicationServerInfo({}, ServerStage.SERVING))
        try:
            yield listener.getsockname()[1]
        finally:
            await server.close()
            while server.connections:
                await asyncio.sleep(0)
            Sanic.unregister_app(app)


@pytest.fixture
async def front(services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with sanic_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    """Sanic has no redirect to raise: its exception with a header."""

    refuses_arguments = 400


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "is cancelled"


class TestStreams(StreamContract):
    """request.respond(), and send() for every line."""


class TestBackground(BackgroundContract):
    """app.add_task() in an after_commit hook."""


class TestWebSocket(WebSocketContract):
    """The handler lasts, each message is a unit."""
