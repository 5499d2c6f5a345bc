"""Starlette."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.asgi import asgi_server
from tests.frameworks.web import (
    AnswerContract,
    BackgroundContract,
    Front,
    SideBySideContract,
    StreamContract,
    UndecoratedContract,
    WebSocketContract,
    front_of,
)
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


def application(services: MoreServices) -> Starlette:
    @transactional
    async def post_note(request: Request) -> Response:
        text = request.path_params["text"]
        await services.write(text)
        try:
            times = int(request.query_params.get("times", 1))
        except ValueError:
            raise HTTPException(422) from None
        await services.write(text, times - 1)
        return JSONResponse({"text": text, "times": times}, 201)

    async def apart(request: Request) -> Response:
        await services.apart(request.path_params["text"])
        return Response()

    @transactional
    async def fails(request: Request) -> Response:
        await services.write(request.path_params["text"])
        raise Boom

    @transactional
    async def raises(request: Request) -> Response:
        await services.write(request.path_params["text"])
        raise HTTPException(request.path_params["status"])

    @transactional
    async def returns(request: Request) -> Response:
        await services.write(request.path_params["text"])
        return Response(status_code=request.path_params["status"])

    @transactional
    async def redirects(request: Request) -> Response:
        await services.write(request.path_params["text"])
        raise HTTPException(303, headers={"location": "/elsewhere"})

    @transactional
    async def redirected(request: Request) -> Response:
        await services.write(request.path_params["text"])
        return RedirectResponse("/elsewhere", 303)

    @transactional
    async def waits(request: Request) -> Response:
        text = request.path_params["text"]
        await services.write(text)
        await services.meetings[text].wait()
        return JSONResponse("done")

    async def stream(request: Request) -> Response:
        return StreamingResponse(services.lines(request.path_params["text"]))

    @transactional
    async def later(request: Request) -> Response:
        text = request.path_params["text"]
        await services.write(f"{text} now")
        return JSONResponse(None, background=BackgroundTask(services.later, text))

    class Messages(WebSocketEndpoint):
        encoding = "text"

        async def on_receive(self, websocket: WebSocket, data: str) -> None:
            try:
                await websocket.send_text(await services.message(data))
            except Boom:
                await websocket.send_text("refused")

    class View(HTTPEndpoint):
        @transactional
        async def post(self, request: Request) -> Response:
            return JSONResponse(await services.view(request.path_params["text"]))

    @transactional
    async def handled(request: Request) -> Response:
        await services.write(request.path_params["text"])
        raise KeyError(request.path_params["text"])

    async def answer(_: Request, error: Exception) -> Response:
        return JSONResponse(str(error))

    @transactional
    async def whole(socket: WebSocket) -> None:
        await socket.accept()
        while (text := await socket.receive_text()) != "end":
            await socket.send_text(await services.message(text))
        await socket.close()

    return Starlette(
        routes=[
            Route("/notes/{text}", post_note, methods=["POST"]),
            Route("/apart/{text}", apart, methods=["POST"]),
            Route("/fails/{text}", fails, methods=["POST"]),
            Route("/raises/{status:int}/{text}", raises, methods=["POST"]),
            Route("/returns/{status:int}/{text}", returns, methods=["POST"]),
            Route("/redirects/{text}", redirects, methods=["POST"]),
            Route("/redirected/{text}", redirected, methods=["POST"]),
            Route("/waits/{text}", waits, methods=["POST"]),
            Route("/stream/{text}", stream, methods=["POST"]),
            Route("/later/{text}", later, methods=["POST"]),
            Route("/view/{text}", View),
            Route("/handled/{text}", handled, methods=["POST"]),
            WebSocketRoute("/ws", Messages),
            WebSocketRoute("/whole", whole),
        ],
        exception_handlers={KeyError: answer},
    )


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    """Query parameters are the handler's to convert."""


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestStreams(StreamContract):
    """StreamingResponse."""


class TestBackground(BackgroundContract):
    """BackgroundTask."""


class TestWebSocket(WebSocketContract):
    """WebSocketEndpoint: each message is a unit."""


class TestViews(ViewContract):
    """HTTPEndpoint."""


class TestErrorHandlers(ErrorHandlerContract):
    """exception_handlers."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """The endpoint is decorated."""


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional
    async def post_note(request: Request) -> Response:
        await write(lite, request.path_params["text"])
        return JSONResponse({}, 409 if request.path_params["text"] == "bad" else 201)

    app = Starlette(routes=[Route("/notes/{text}", post_note, methods=["POST"])])

    def drive() -> None:
        with TestClient(app) as client:
            assert client.post("/notes/tea").status_code == 201
            assert client.post("/notes/bad").status_code == 409
            client.portal.call(lite.close)  # type: ignore[union-attr]  # the pool of its loop

    await asyncio.to_thread(drive)
    assert await sqlite_judge.texts() == ["tea"]
