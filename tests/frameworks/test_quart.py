"""Quart."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from quart import Quart, Response, abort, make_response, redirect, request, websocket
from quart.views import MethodView

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
from txkit import Database, after_commit, new_context, run_in_new_ctx, transactional

__all__ = ["services"]


def application(services: MoreServices) -> Quart:
    app = Quart(__name__)

    @app.post("/notes/<text>")
    @transactional
    async def post_note(text: str) -> Any:
        await services.write(text)
        try:
            times = int(request.args.get("times", 1))
        except ValueError:
            abort(422)
        await services.write(text, times - 1)
        return {"text": text, "times": times}, 201

    @app.post("/apart/<text>")
    async def apart(text: str) -> Any:
        await services.apart(text)
        return {}

    @app.post("/fails/<text>")
    @transactional
    async def fails(text: str) -> Any:
        await services.write(text)
        raise Boom

    @app.post("/raises/<int:status>/<text>")
    @transactional
    async def raises(status: int, text: str) -> Any:
        await services.write(text)
        abort(status)

    @app.post("/returns/<int:status>/<text>")
    @transactional
    async def returns(status: int, text: str) -> Any:
        await services.write(text)
        return Response("", status)

    @app.post("/pairs/<int:status>/<text>")
    @transactional
    async def pairs(status: int, text: str) -> Any:
        await services.write(text)
        return {"text": text}, status

    @app.post("/triples/<int:status>/<text>")
    @transactional
    async def triples(status: int, text: str) -> Any:
        await services.write(text)
        return {"text": text}, status, {"x-so": "so"}

    @app.post("/with-headers/<int:status>/<text>")
    @transactional
    async def with_headers(status: int, text: str) -> Any:
        await services.write(text)
        return Response("", status), {"x-so": "so"}

    partial_view = functools.partial(transactional(pairs.__wrapped__))
    app.add_url_rule(
        "/partial/<int:status>/<text>", "partial", view_func=partial_view, methods=["POST"]
    )

    class Pairs(MethodView):
        @transactional
        async def get(self, status: int, text: str) -> Any:
            await services.write(text)
            return {"text": text}, status

        @transactional
        async def post(self, status: int, text: str) -> Any:
            await services.write(text)
            return {"text": text}, status

    app.add_url_rule("/pair-of-a-view/<int:status>/<text>", view_func=Pairs.as_view("pairs_view"))

    @transactional
    async def rows_and_their_number(status: int, text: str) -> tuple[list[str], int]:
        await services.write(text)
        return [text], status

    @transactional
    async def both(status: int, text: str) -> tuple[list[str], int]:
        await new_context(rows_and_their_number)(status, text)
        return await rows_and_their_number(status, text)

    @app.post("/services/<int:status>/<text>")
    async def with_services(status: int, text: str) -> Any:
        await both(status, text)
        await run_in_new_ctx(rows_and_their_number, status, text)
        return {}

    @app.post("/aborts/<int:status>/<text>")
    @transactional
    async def aborts(status: int, text: str) -> Any:
        await services.write(text)
        abort(Response("", status))

    @app.post("/redirects/<text>")
    @transactional
    async def redirects(text: str) -> Any:
        await services.write(text)
        abort(redirect("/elsewhere"))  # type: ignore[arg-type]

    @app.post("/redirected/<text>")
    @transactional
    async def redirected(text: str) -> Any:
        await services.write(text)
        return redirect("/elsewhere")

    @app.post("/waits/<text>")
    @transactional
    async def waits(text: str) -> Any:
        await services.write(text)
        await services.meetings[text].wait()
        return "done"

    @app.post("/stream/<text>")
    async def stream(text: str) -> Any:
        return services.lines(text)

    @app.post("/limited/<text>")
    async def limited(text: str) -> Any:
        response = await make_response(services.lines(text))
        response.timeout = 0.2
        return response

    @app.post("/later/<text>")
    @transactional
    async def later(text: str) -> Any:
        await services.write(f"{text} now")
        after_commit(lambda: app.add_background_task(new_context(services.later), text))
        return ""

    @app.websocket("/ws")
    async def messages() -> None:
        while True:
            try:
                await websocket.send(await services.message(await websocket.receive()))
            except Boom:
                await websocket.send("refused")

    class Views(MethodView):
        @transactional
        async def post(self, text: str) -> Any:
            return await services.view(text)

    app.add_url_rule("/view/<text>", view_func=Views.as_view("view"))

    @app.post("/handled/<text>")
    @transactional
    async def handled(text: str) -> Any:
        await services.write(text)
        raise KeyError(text)

    @app.errorhandler(KeyError)
    async def answer(error: Exception) -> Any:
        return str(error)

    @app.websocket("/whole")
    @transactional
    async def whole() -> None:
        while (text := await websocket.receive()) != "end":
            await websocket.send(await services.message(text))

    return app


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    """Query parameters are the handler's to convert."""


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "is cancelled"


class TestStreams(StreamContract):
    """A generator is returned."""

    async def test_stream_that_lasts_too_long_is_rolled_back(self, front: Front) -> None:
        with pytest.raises(httpx.HTTPError):
            await front.post("/limited/lost")
        await front.quiet()
        assert await front.texts() == []


class TestBackground(BackgroundContract):
    """add_background_task, in a hook: without it, it would begin before the commit."""


class TestWebSocket(WebSocketContract):
    """Each message is a unit."""


class TestViews(ViewContract):
    """MethodView."""


class TestErrorHandlers(ErrorHandlerContract):
    """errorhandler."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """The endpoint is decorated; Quart cancels it when its client goes."""


@pytest.mark.parametrize(("status", "left"), [(202, ["tea"]), (409, [])])
async def test_response_that_is_raised_is_judged_by_its_status(
    front: Front, status: int, left: list[str]
) -> None:
    assert (await front.post(f"/aborts/{status}/tea")).status_code == status
    assert await front.texts() == left


@pytest.mark.parametrize("path", ["pairs", "pair-of-a-view", "triples", "with-headers", "partial"])
async def test_tuple_that_the_view_returns_is_its_answer(front: Front, path: str) -> None:
    assert (await front.post(f"/{path}/409/lost")).status_code == 409
    assert (await front.post(f"/{path}/201/kept")).status_code == 201
    assert await front.texts() == ["kept"]


async def test_tuple_of_the_get_that_answers_head(front: Front) -> None:
    assert (await front.client.head("/pair-of-a-view/409/lost")).status_code == 409
    assert (await front.client.head("/pair-of-a-view/200/kept")).status_code == 200
    assert await front.texts() == ["kept"]


async def test_tuple_of_any_other_function_is_data(front: Front) -> None:
    """Inside the view's unit, beside it, and below a view that has no decorator."""
    assert (await front.post("/services/409/kept")).status_code == 200
    assert await front.texts() == ["kept"] * 3


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    app = Quart(__name__)

    @app.post("/notes/<text>")
    @transactional
    async def post_note(text: str) -> Any:
        await write(lite, text)
        if text == "bad":
            abort(409)
        return {}, 201

    client = app.test_client()
    assert (await client.post("/notes/tea")).status_code == 201
    assert (await client.post("/notes/bad")).status_code == 409
    assert await sqlite_judge.texts() == ["tea"]
