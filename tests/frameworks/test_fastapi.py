"""FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Path, WebSocket
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

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
from txkit import transactional

__all__ = ["services"]


def application(services: Services) -> FastAPI:
    app = FastAPI()

    @app.post("/notes/{text}", status_code=201)
    @transactional
    async def post_note(
        text: Annotated[str, Path(max_length=10)], times: int = 1
    ) -> dict[str, str | int]:
        await services.write(text, times)
        return {"text": text, "times": times}

    @app.post("/apart/{text}")
    async def apart(text: str) -> None:
        await services.apart(text)

    @app.post("/fails/{text}")
    @transactional
    async def fails(text: str) -> None:
        await services.write(text)
        raise Boom

    @app.post("/raises/{status}/{text}")
    @transactional
    async def raises(status: int, text: str) -> None:
        await services.write(text)
        raise HTTPException(status)

    @app.post("/returns/{status}/{text}")
    @transactional
    async def returns(status: int, text: str) -> JSONResponse:
        await services.write(text)
        return JSONResponse({}, status)

    @app.post("/redirects/{text}")
    @transactional
    async def redirects(text: str) -> None:
        await services.write(text)
        raise HTTPException(303, headers={"location": "/elsewhere"})

    @app.post("/redirected/{text}")
    @transactional
    async def redirected(text: str) -> RedirectResponse:
        await services.write(text)
        return RedirectResponse("/elsewhere", 303)

    @app.post("/waits/{text}")
    @transactional
    async def waits(text: str) -> str:
        await services.write(text)
        await services.meetings[text].wait()
        return "done"

    @app.post("/stream/{text}")
    async def stream(text: str) -> StreamingResponse:
        return StreamingResponse(services.lines(text))

    @app.post("/later/{text}")
    @transactional
    async def later(text: str, tasks: BackgroundTasks) -> None:
        await services.write(f"{text} now")
        tasks.add_task(services.later, text)

    @app.websocket("/ws")
    async def messages(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            try:
                await socket.send_text(await services.message(text))
            except Boom:
                await socket.send_text("refused")

    return app


@pytest.fixture
async def front(services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestAnswers(AnswerContract):
    """Plain requests."""


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "goes on"


class TestStreams(StreamContract):
    """StreamingResponse."""


class TestBackground(BackgroundContract):
    """BackgroundTasks."""


class TestWebSocket(WebSocketContract):
    """The endpoint lasts, each message is a unit."""
