"""Falcon, its ASGI application."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import falcon
import pytest
from falcon.asgi import App, Request, Response, WebSocket
from falcon.testing import ASGIConductor

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
    MoreServices,
    RefusedCommitContract,
    UnwatchedStreamContract,
    ViewContract,
    WholeSocketContract,
    services,
)
from tests.notes import Boom, write
from txkit import Database, transactional

__all__ = ["services"]


class Resource:
    """What handles a path: its methods are the handlers."""

    def __init__(self, services: MoreServices) -> None:
        self.services = services


class Notes(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(text)
        times = req.get_param_as_int("times", default=1)  # refuses by raising
        await self.services.write(text, times - 1)
        resp.status = 201
        resp.media = {"text": text, "times": times}


class Apart(Resource):
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.apart(text)


class Fails(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(text)
        raise Boom


class Raises(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, status: int, text: str) -> None:
        await self.services.write(text)
        raise falcon.HTTPError(status)


class Returns(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, status: int, text: str) -> None:
        await self.services.write(text)
        resp.status = status


class Redirects(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(text)
        raise falcon.HTTPSeeOther("/elsewhere")


class Redirected(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(text)
        resp.status = falcon.HTTP_303
        resp.location = "/elsewhere"


class Waits(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(text)
        await self.services.meetings[text].wait()
        resp.text = "done"


class Streams(Resource):
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        resp.stream = self.lines(text)

    @transactional
    async def lines(self, text: str) -> AsyncIterator[bytes]:
        async with contextlib.aclosing(self.services.lines(text)) as lines:
            async for line in lines:
                yield line.encode()


class Later(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(f"{text} now")
        resp.schedule(partial(self.announce, text))

    async def announce(self, text: str) -> None:
        try:
            await self.services.later(text)
        except Boom:
            logging.getLogger(__name__).exception("background work failed")


async def look(req: Request, resp: Response, resource: Any, params: dict[str, str]) -> None:
    if params["text"] == "refused":
        raise falcon.HTTPForbidden


class View(Resource):
    @falcon.before(look)
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        resp.text = await self.services.view(text)


class Handled(Resource):
    @transactional
    async def on_post(self, req: Request, resp: Response, text: str) -> None:
        await self.services.write(text)
        raise KeyError(text)


class Messages(Resource):
    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        await ws.accept()
        with contextlib.suppress(falcon.WebSocketDisconnected):
            while True:
                try:
                    await ws.send_text(await self.services.message(await ws.receive_text()))
                except Boom:
                    await ws.send_text("refused")


class Whole(Resource):
    @transactional
    async def on_websocket(self, req: Request, ws: WebSocket) -> None:
        await ws.accept()
        while (text := await ws.receive_text()) != "end":
            await ws.send_text(await self.services.message(text))
        await ws.close()


ROUTES: dict[str, type[Resource]] = {
    "/notes/{text}": Notes,
    "/apart/{text}": Apart,
    "/fails/{text}": Fails,
    "/raises/{status:int}/{text}": Raises,
    "/returns/{status:int}/{text}": Returns,
    "/redirects/{text}": Redirects,
    "/redirected/{text}": Redirected,
    "/waits/{text}": Waits,
    "/stream/{text}": Streams,
    "/later/{text}": Later,
    "/view/{text}": View,
    "/handled/{text}": Handled,
    "/ws": Messages,
    "/whole": Whole,
}


def application(services: MoreServices) -> App:
    async def answer(
        req: Request, resp: Response | None, error: Exception, params: Any, ws: Any = None
    ) -> None:
        assert resp is not None
        resp.status = 200
        resp.text = str(error)

    app = App()
    for path, resource in ROUTES.items():
        app.add_route(path, resource(services))
    app.add_error_handler(KeyError, answer)
    return app


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    refuses_arguments = 400


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestStreams(UnwatchedStreamContract):
    """resp.stream."""


class TestBackground(BackgroundContract):
    """resp.schedule, whose work has to tell its failure itself."""


class TestWebSocket(WebSocketContract):
    """Each message is a unit."""


class TestViews(ViewContract):
    """A resource; a hook above the decorator."""

    async def test_hook_that_refuses_has_begun_nothing(self, front: Front) -> None:
        assert (await front.post("/view/refused")).status_code == 403
        assert await front.texts() == []


class TestErrorHandlers(ErrorHandlerContract):
    """add_error_handler."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """on_websocket is decorated."""


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    class Posts:
        @transactional
        async def on_post(self, req: Request, resp: Response, text: str) -> None:
            await write(lite, text)
            resp.status = 409 if text == "bad" else 201

    app = App()
    app.add_route("/notes/{text}", Posts())
    async with ASGIConductor(app) as client:
        assert (await client.simulate_post("/notes/tea")).status_code == 201
        assert (await client.simulate_post("/notes/bad")).status_code == 409
    assert await sqlite_judge.texts() == ["tea"]
