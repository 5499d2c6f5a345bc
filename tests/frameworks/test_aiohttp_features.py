"""aiohttp: what it has besides routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.test_aiohttp import aiohttp_server
from tests.frameworks.web import Front, front_of
from tests.frameworks.web_features import (
    ErrorHandlerContract,
    MoreServices,
    RefusedCommitContract,
    ViewContract,
    WholeSocketContract,
    services,
)
from tests.notes import Boom, write
from txkit import Database, transactional

__all__ = ["services"]


def application(services: MoreServices) -> web.Application:
    routes = web.RouteTableDef()

    @routes.view("/view/{text}")
    class Note(web.View):
        @transactional
        async def post(self) -> web.Response:
            return web.json_response(await services.view(self.request.match_info["text"]))

    @routes.post("/handled/{text}")
    @transactional
    async def handled(request: web.Request) -> web.Response:
        await services.write(request.match_info["text"])
        raise KeyError

    @web.middleware
    async def answer(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            return await handler(request)
        except KeyError:
            return web.Response(text="handled")

    @routes.get("/whole")
    @transactional
    async def whole(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while (text := await socket.receive_str()) != "end":
            await socket.send_str(await services.message(text))
        await socket.close()
        return socket

    @routes.get("/loop")
    @transactional
    async def loop(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(await services.message(message.data))
        return socket

    app = web.Application(middlewares=[answer])
    app.add_routes(routes)
    return app


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with aiohttp_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestViews(ViewContract):
    """web.View."""


class TestErrorHandlers(ErrorHandlerContract):
    """aiohttp's are middlewares."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """receive_str() raises when the client is gone."""

    async def test_loop_over_messages_ends_well_when_the_client_goes_away(
        self, front: Front
    ) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/loop") as socket:
            await socket.send("tea")
            assert await socket.recv() == "wrote tea"
            assert await front.texts() == []
        await front.quiet()
        assert await front.texts() == ["tea"]


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional
    async def post_note(request: web.Request) -> web.Response:
        await write(lite, request.match_info["text"])
        if request.match_info["text"] == "bad":
            raise Boom
        return web.json_response({"times": 1})

    app = web.Application()
    app.router.add_post("/notes/{text}", post_note)
    async with TestClient(TestServer(app)) as client:
        assert await (await client.post("/notes/tea")).json() == {"times": 1}
        assert (await client.post("/notes/bad")).status == 500
    assert await sqlite_judge.texts() == ["tea"]
