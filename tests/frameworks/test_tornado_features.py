"""Tornado: what it has besides answering methods."""

from __future__ import annotations

import asyncio
import json
import unittest
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application, RequestHandler, authenticated
from tornado.websocket import WebSocketHandler

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.test_tornado import tornado_server
from tests.frameworks.web import SLOW_COMMIT, Front, front_of
from tests.frameworks.web_features import (
    ErrorHandlerContract,
    InjectionContract,
    MoreServices,
    RefusedCommitContract,
    ViewContract,
    services,
)
from tests.notes import Boom, write
from txkit import Database, transactional

__all__ = ["services"]


def application(services: MoreServices) -> Application:
    class View(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            self.write(json.dumps(await services.view(text)))

    class Needs(RequestHandler):
        @transactional
        async def prepare(self) -> None:
            self.needed = await services.need(self.path_args[0])

        @transactional
        async def post(self, _: str) -> None:
            self.write(json.dumps(await services.view(self.needed)))

    class Handled(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            raise Boom

        def write_error(self, _: int, **__: Any) -> None:
            self.set_status(200)
            self.finish("handled")

    class Signed(RequestHandler):
        def get_current_user(self) -> str | None:
            return self.get_argument("user", None)

        @authenticated
        @transactional
        async def post(self, text: str) -> None:
            self.write(json.dumps(await services.view(text)))

    class Finishes(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            await self.finish("done")

    class Redirects(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await services.write(text)
            self.redirect("/elsewhere")

    class Whole(WebSocketHandler):
        @transactional
        async def on_message(self, message: str | bytes) -> None:
            await services.view(str(message))
            await self.write_message("written")

    return Application(
        [
            ("/view/(.*)", View),
            ("/needs/(.*)", Needs),
            ("/handled/(.*)", Handled),
            ("/signed/(.*)", Signed),
            ("/finishes/(.*)", Finishes),
            ("/redirects/(.*)", Redirects),
            ("/ws", Whole),
        ],
        login_url="/login",
    )


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with tornado_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestViews(ViewContract):
    """A RequestHandler is one."""


class TestPrepare(InjectionContract):
    """prepare() is what comes nearest to an injected value."""


class TestErrorHandlers(ErrorHandlerContract):
    """write_error."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


async def test_authenticated_stands_above(front: Front) -> None:
    assert (await front.post("/signed/lost")).status_code == 403
    assert await front.texts() == []
    assert (await front.post("/signed/tea?user=me")).json() == "tea"
    assert await front.texts() == ["tea"]


def test_below_authenticated_is_the_place() -> None:
    with pytest.raises(TypeError, match="put @transactional below that one"):

        @transactional  # type: ignore[arg-type]
        @authenticated
        async def post(self: RequestHandler) -> None: ...


@pytest.mark.parametrize("way", ["finishes", "redirects"])
async def test_finish_in_the_body_is_sent_before_the_commit(front: Front, way: str) -> None:
    await front.judge.connection.execute(SLOW_COMMIT)
    assert await front.texts_at_first_byte(f"/{way}/early") == []
    await front.quiet()
    assert await front.texts() == ["early"]


async def test_decorated_on_message_is_a_unit(front: Front) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{front.port}/ws") as socket:
        await socket.send("tea")
        assert await socket.recv() == "written"
        await socket.send("bad")
        await socket.wait_closed()  # Tornado closes after an exception
    await front.quiet()
    assert await front.texts() == ["tea"]


async def test_the_test_case_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    class Note(RequestHandler):
        @transactional
        async def post(self, text: str) -> None:
            await write(lite, text)
            if text == "bad":
                raise Boom
            self.write({"times": 1})

    class Case(AsyncHTTPTestCase):
        def get_app(self) -> Application:
            return Application([("/notes/(.*)", Note)])

        def tearDown(self) -> None:
            self.io_loop.run_sync(lite.close)  # the pool of the case's own loop
            super().tearDown()

        def test_post(self) -> None:
            answer = self.fetch("/notes/tea", method="POST", body="")
            assert json.loads(answer.body) == {"times": 1}
            assert self.fetch("/notes/bad", method="POST", body="").code == 500

    result = await asyncio.to_thread(Case("test_post").run)
    assert isinstance(result, unittest.TestResult)
    assert result.wasSuccessful(), result.failures + result.errors
    assert await sqlite_judge.texts() == ["tea"]
