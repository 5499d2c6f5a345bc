"""Sanic: what it has besides routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
from sanic import Blueprint, HTTPResponse, Request, Sanic, Websocket, json, text
from sanic.views import HTTPMethodView

from tests.conftest import PostgresJudge
from tests.frameworks.test_sanic import sanic, sanic_server
from tests.frameworks.web import Front, front_of
from tests.frameworks.web_features import (
    ErrorHandlerContract,
    InjectionContract,
    MoreServices,
    RefusedCommitContract,
    ViewContract,
    WholeSocketContract,
    services,
)
from txkit import transactional

__all__ = ["services"]


def application(services: MoreServices) -> Sanic[Any, Any]:
    app = sanic()
    needing = Blueprint("needing")

    class View(HTTPMethodView, attach=app, uri="/view/<words:str>"):
        @transactional
        async def post(self, _: Request, words: str) -> HTTPResponse:
            return json(await services.view(words))

    @needing.on_request
    @transactional
    async def find_needed(request: Request) -> None:
        request.ctx.needed = await services.need(request.match_info["words"])

    @needing.post("/needs/<words:str>")
    @transactional
    async def needs(request: Request, words: str) -> HTTPResponse:
        return json(await services.view(request.ctx.needed))

    @app.post("/handled/<words:str>")
    @transactional
    async def handled(_: Request, words: str) -> HTTPResponse:
        await services.write(words)
        raise KeyError

    @app.exception(KeyError)
    async def answer(_: Request, error: Exception) -> HTTPResponse:
        return text("handled")

    @app.websocket("/whole")
    @transactional
    async def whole(_: Request, socket: Websocket) -> None:
        while (words := await socket.recv()) != "end":
            await socket.send(await services.message(str(words)))

    @app.websocket("/loop")
    @transactional
    async def loop(_: Request, socket: Websocket) -> None:
        async for words in socket:
            await socket.send(await services.message(str(words)))

    app.blueprint(needing)
    return app


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with sanic_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestViews(ViewContract):
    """HTTPMethodView."""


class TestRequestHook(InjectionContract):
    """on_request of a blueprint is what comes nearest to an injected value."""


class TestErrorHandlers(ErrorHandlerContract):
    """app.exception."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """The handler is decorated."""

    async def test_loop_over_messages_is_rolled_back_when_the_client_goes_away(
        self, front: Front
    ) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/loop") as socket:
            await socket.send("tea")
            assert await socket.recv() == "wrote tea"
        await front.quiet()
        assert await front.texts() == []
