"""Tornado, behind its own server.

The answer is sent when the method has returned: the methods here write, and leave
``finish`` (and what calls it: ``redirect``, ``render``) to Tornado.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, Finish, HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

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


def application(services: Services) -> Application:
    class Note(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            try:
                times = int(self.get_argument("times", "1"))
            except ValueError:
                raise HTTPError(422, "times is a number") from None
            await services.write(text, times - 1)
            self.set_status(201)
            self.write({"text": text, "times": times})

    class Apart(RequestHandler):
        async def post(self, text: str) -> None:
            await services.apart(text)

    class Fails(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            raise Boom

    class Raises(RequestHandler):
        @transactional
        async def post(self, status: str, text: str) -> None:
            await services.write(text)
            raise HTTPError(int(status))

    class Returns(RequestHandler):
        @transactional
        async def post(self, status: str, text: str) -> None:
            await services.write(text)
            self.set_status(int(status))
            self.write({})

    class Redirects(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            self.set_status(303)
            self.set_header("Location", "/elsewhere")
            raise Finish

    class Redirected(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            self.set_status(303)
            self.set_header("Location", "/elsewhere")

    class Waits(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            await services.meetings[text].wait()
            self.write("done")

    class Stream(RequestHandler):
        async def post(self, text: str) -> None:
            try:
                async with aclosing(services.lines(text)) as lines:  # type: ignore[type-var]
                    async for line in lines:
                        self.write(line)
                        await self.flush()
            except Boom:
                self.detach().close()  # else Tornado would end the body well

    class Later(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(f"{text} now")
            after_commit(lambda: IOLoop.current().spawn_callback(services.later, text))

    class Messages(WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            try:
                await self.write_message(await services.message(str(message)))
            except Boom:
                await self.write_message("refused")

    return Application(
        [
            ("/notes/(.*)", Note),
            ("/apart/(.*)", Apart),
            ("/fails/(.*)", Fails),
            ("/raises/(.*)/(.*)", Raises),
            ("/returns/(.*)/(.*)", Returns),
            ("/redirects/(.*)", Redirects),
            ("/redirected/(.*)", Redirected),
            ("/waits/(.*)", Waits),
            ("/stream/(.*)", Stream),
            ("/later/(.*)", Later),
            ("/ws", Messages),
        ]
    )


@contextlib.asynccontextmanager
async def tornado_server(app: Application) -> AsyncIterator[int]:
    """Serve on a free port of loopback; give the port."""
    server = HTTPServer(app)
    [listener] = bind_sockets(0, "127.0.0.1")
    server.add_socket(listener)
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.fixture
async def front(services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with tornado_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    """A handler reads and checks its arguments itself; a redirect is raised by Finish."""


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestStreams(StreamContract):
    """flush() for every line."""


class TestBackground(BackgroundContract):
    """Tornado has none: a callback that an after_commit hook spawns."""


class TestWebSocket(WebSocketContract):
    """on_message sends what its decorated service has committed."""
