"""Litestar: plain requests, streams, background tasks and WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from litestar import Litestar, Response, post, websocket_listener
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery, PathParameter
from litestar.response import Redirect, Stream

from tests.conftest import PostgresJudge
from tests.frameworks.asgi import asgi_server
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
from txkit import set_rollback_only, transactional

__all__ = ["services"]


def application(services: Services) -> Litestar:
    @post("/notes/{text:str}")
    @transactional
    async def post_note(
        text: Annotated[str, PathParameter(max_length=10)], times: FromQuery[int] = 1
    ) -> dict[str, str | int]:
        await services.write(text, times)
        return {"text": text, "times": times}

    @post("/apart/{text:str}")
    async def apart(text: FromPath[str]) -> None:
        await services.apart(text)

    @post("/fails/{text:str}")
    @transactional
    async def fails(text: FromPath[str]) -> None:
        await services.write(text)
        raise Boom

    @post("/raises/{status:int}/{text:str}")
    @transactional
    async def raises(status: FromPath[int], text: FromPath[str]) -> None:
        await services.write(text)
        raise HTTPException(status_code=status)

    @post("/returns/{status:int}/{text:str}")
    @transactional
    async def returns(status: FromPath[int], text: FromPath[str]) -> Response[dict[str, str]]:
        await services.write(text)
        return Response({}, status_code=status)

    @post("/redirects/{text:str}")
    @transactional
    async def redirects(text: FromPath[str]) -> None:
        await services.write(text)
        raise HTTPException(status_code=303, headers={"location": "/elsewhere"})

    @post("/redirected/{text:str}", status_code=303)
    @transactional
    async def redirected(text: FromPath[str]) -> Redirect:
        await services.write(text)
        return Redirect("/elsewhere", status_code=303)

    @post("/waits/{text:str}", status_code=200)
    @transactional
    async def waits(text: FromPath[str]) -> str:
        await services.write(text)
        await services.meetings[text].wait()
        return "done"

    @post("/stream/{text:str}")
    async def stream(text: FromPath[str]) -> Stream:
        return Stream(services.lines(text))

    @post("/later/{text:str}")
    @transactional
    async def later(text: FromPath[str]) -> Response[Any]:
        await services.write(f"{text} now")
        return Response(None, background=BackgroundTask(services.later, text))

    @websocket_listener("/ws")
    @transactional
    async def messages(data: str) -> str:
        await services.write(data)
        if data == "bad":
            set_rollback_only()
            return "refused"
        return f"wrote {data}"

    handlers = [
        post_note,
        apart,
        fails,
        raises,
        returns,
        redirects,
        redirected,
        waits,
        stream,
        later,
    ]
    return Litestar([*handlers, messages], openapi_config=None)


@pytest.fixture
async def front(services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    refuses_arguments = 400


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestStreams(StreamContract):
    """Stream."""


class TestBackground(BackgroundContract):
    """BackgroundTask."""


class TestWebSocket(WebSocketContract):
    """A listener: each message is a call of the decorated function."""
