"""BlackSheep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from blacksheep import Application, Response, Router, StreamedContent, WebSocket, json, redirect
from blacksheep.exceptions import HTTPException
from blacksheep.messages import Request
from blacksheep.server.bindings import Binder, BoundValue
from blacksheep.server.controllers import Controller, abstract
from blacksheep.server.openapi.v3 import OpenAPIHandler
from blacksheep.testing import TestClient
from openapidocs.common import Serializer
from openapidocs.v3 import Info

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.asgi import asgi_server
from tests.frameworks.web import (
    AnswerContract,
    BackgroundContract,
    Front,
    SideBySideContract,
    UndecoratedContract,
    WebSocketContract,
    front_of,
)
from tests.frameworks.web_features import (
    ErrorHandlerContract,
    InjectionContract,
    MoreServices,
    RefusedCommitContract,
    UnwatchedStreamContract,
    ViewContract,
    WholeSocketContract,
    services,
)
from tests.notes import Boom, write
from txkit import Database, DevelopmentWarning, after_commit, new_context, transactional

__all__ = ["services"]


class Needed(BoundValue[str]):
    """What the binder below gives to a handler."""


class NeededBinder(Binder):
    """BlackSheep's way to an injected value that has to be awaited."""

    handle = Needed
    services: MoreServices

    @transactional
    async def get_value(self, request: Request) -> str:
        assert request.route_values is not None
        return await self.services.need(request.route_values["text"])


def answering(app: Application, services: MoreServices) -> None:
    post = app.router.post

    @post("/notes/{text}")
    @transactional
    async def post_note(text: str, times: int = 1) -> Response:
        await services.write(text, times)
        return json({"text": text, "times": times}, 201)

    @post("/apart/{text}")
    async def apart(text: str) -> None:
        await services.apart(text)

    @post("/fails/{text}")
    @transactional
    async def fails(text: str) -> None:
        await services.write(text)
        raise Boom

    @post("/raises/{status}/{text}")
    @transactional
    async def raises(status: int, text: str) -> None:
        await services.write(text)
        raise HTTPException(status)

    @post("/returns/{status}/{text}")
    @transactional
    async def returns(status: int, text: str) -> Response:
        await services.write(text)
        return Response(status)

    @post("/redirected/{text}")
    @transactional
    async def redirected(text: str) -> Response:
        await services.write(text)
        return redirect("/elsewhere")

    @post("/waits/{text}")
    @transactional
    async def waits(text: str) -> str:
        await services.write(text)
        await services.meetings[text].wait()
        return "done"

    @post("/handled/{text}")
    @transactional
    async def handled(text: str) -> None:
        await services.write(text)
        raise KeyError(text)

    @app.exception_handler(KeyError)
    async def answer(_: Application, request: Request, error: KeyError) -> Response:
        return json(str(error))


def application(services: MoreServices) -> Application:
    app = Application(router=Router())
    answering(app, services)

    @app.router.post("/stream/{text}")
    async def stream(text: str) -> Response:
        @transactional
        async def lines() -> AsyncIterator[bytes]:
            async with aclosing(services.lines(text)) as lines:
                async for line in lines:
                    yield line.encode()

        return Response(200, content=StreamedContent(b"text/plain", lines))

    running: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if error := task.exception():
            logging.getLogger(__name__).error("background work failed", exc_info=error)

    @app.router.post("/later/{text}")
    @transactional
    async def later(text: str) -> None:
        def start() -> None:
            task = asyncio.create_task(new_context(services.later)(text))
            running.add(task)
            task.add_done_callback(ended)

        await services.write(f"{text} now")
        after_commit(start)

    @app.router.ws("/ws")
    async def messages(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            try:
                await websocket.send_text(await services.message(await websocket.receive_text()))
            except Boom:
                await websocket.send_text("refused")

    @app.router.ws("/whole")
    @transactional
    async def whole(websocket: WebSocket) -> None:
        await websocket.accept()
        while (text := await websocket.receive_text()) != "end":
            await websocket.send_text(await services.message(text))
        await websocket.close()

    class Views(Controller):
        @app.controllers_router.post("/view/{text}")
        @transactional
        async def post(self, text: str) -> Response:
            return json(await services.view(text))

    class Base(Controller):
        @app.controllers_router.post("/inherited/{text}")
        @transactional
        async def inherited(self, text: str) -> Response:
            await services.write(text)
            raise Boom

    class Inheriting(abstract()(Base)):  # type: ignore[misc]
        route = "/sub"

    NeededBinder.services = services

    @app.router.post("/needs/{text}")
    @transactional
    async def needs(text: str, needed: Needed) -> Response:
        return json(await services.view(needed.value))

    return app


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    app = application(services)
    await app.start()
    async with asgi_server(app) as port, front_of(port, services, pg) as one:
        yield one
    await app.stop()


class TestAnswers(AnswerContract):
    """BlackSheep has no redirect to raise."""

    refuses_arguments = 400

    @pytest.mark.parametrize("way", ["redirected"])
    async def test_redirect_commits(self, front: Front, way: str) -> None:
        await super().test_redirect_commits(front, way)


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestStreams(UnwatchedStreamContract):
    """StreamedContent."""


class TestBackground(BackgroundContract):
    """BlackSheep has none of its own: a task that a hook starts after the commit."""


class TestWebSocket(WebSocketContract):
    """Each message is a unit."""


class TestViews(ViewContract):
    """Controller."""

    async def test_handler_that_is_inherited_has_lost_its_decorator(self, front: Front) -> None:
        """BlackSheep makes a function of its own for each controller that inherits one."""
        with pytest.warns(DevelopmentWarning, match="is decorated, but its framework calls the"):
            assert (await front.post("/sub/inherited/kept")).status_code == 500
        assert await front.texts() == ["kept"]


class TestBinders(InjectionContract):
    """A binder's decorated get_value."""


class TestErrorHandlers(ErrorHandlerContract):
    """exception_handler."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """The endpoint is decorated."""


async def described(decorate: Callable[[Any], Any]) -> str:
    """Give the OpenAPI document of an application whose handlers are decorated so."""
    app = Application(router=Router())
    docs = OpenAPIHandler(info=Info("Notes", "1"))
    docs.bind_app(app)

    @app.router.get("/notes/{number}")
    @decorate
    async def get_note(number: int, q: str | None = None) -> list[str]:
        """Give a note.

        With all its tags.
        """
        raise NotImplementedError

    await app.start()
    await app.stop()
    return Serializer().to_json(docs.generate_documentation(app))


async def test_openapi_is_as_without_the_decorator() -> None:
    document = await described(transactional)
    assert document == await described(lambda function: function)
    assert "Give a note." in document
    assert '"number"' in document


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    app = Application(router=Router())

    @app.router.post("/notes/{text}")
    @transactional
    async def post_note(text: str) -> Response:
        await write(lite, text)
        return Response(409 if text == "bad" else 201)

    await app.start()
    client = TestClient(app)
    assert (await client.post("/notes/tea")).status == 201
    assert (await client.post("/notes/bad")).status == 409
    await app.stop()
    assert await sqlite_judge.texts() == ["tea"]
