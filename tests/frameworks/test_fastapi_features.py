"""FastAPI: what it has besides routes, and what it makes of a handler's signature."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.asgi import asgi_server
from tests.frameworks.web import Front, front_of
from tests.frameworks.web_features import (
    ErrorHandlerContract,
    InjectionContract,
    MoreServices,
    PairContract,
    RefusedCommitContract,
    ViewContract,
    WholeSocketContract,
    services,
)
from tests.notes import Boom, write
from txkit import Database, transactional

__all__ = ["services"]


class Views:
    """A handler that is a method of an object."""

    def __init__(self, services: MoreServices) -> None:
        self.services = services

    @transactional
    async def post(self, text: str) -> str:
        return await self.services.view(text)


def application(services: MoreServices) -> FastAPI:
    app = FastAPI()

    @transactional
    async def pair(text: str) -> AsyncIterator[str]:
        await services.write(f"{text} before")
        yield text
        await services.write(f"{text} after")

    app.post("/view/{text}")(Views(services).post)

    @app.post("/needs/{text}")  # noqa: FAST003 - the dependency's
    @transactional
    async def needs(needed: Annotated[str, Depends(services.need)]) -> str:
        return await services.view(needed)

    @app.post("/pair/{text}")
    @transactional
    async def paired(value: Annotated[str, Depends(pair)]) -> str:
        return await services.view(value)

    @app.post("/handled/{text}")
    @transactional
    async def handled(text: str) -> None:
        await services.write(text)
        raise KeyError(text)

    @app.exception_handler(KeyError)
    async def answer(_: Request, error: KeyError) -> JSONResponse:
        return JSONResponse(str(error))

    @app.post("/injected/{status}/{text}")
    @transactional
    async def injected(status: int, text: str, response: Response) -> None:
        await services.write(text)
        response.status_code = status

    @app.post("/misfit/{text}")
    @transactional
    async def misfit(text: str) -> int:
        await services.write(text)
        return "no number"  # type: ignore[return-value]

    @app.websocket("/whole")
    @transactional
    async def whole(socket: WebSocket) -> None:
        await socket.accept()
        while (text := await socket.receive_text()) != "end":
            await socket.send_text(await services.message(text))
        await socket.close()

    return app


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestViews(ViewContract):
    """FastAPI has no views in classes of its own: a bound method."""


class TestDependencies(InjectionContract):
    """Depends."""


class TestYieldDependency(PairContract):
    at_first_byte = ("tea",)  # it ends after the response


class TestErrorHandlers(ErrorHandlerContract):
    """app.exception_handler."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """The endpoint is decorated."""


@pytest.mark.parametrize(("status", "left"), [(202, ["tea"]), (409, [])])
async def test_status_of_an_injected_response_counts(
    front: Front, status: int, left: list[str]
) -> None:
    assert (await front.post(f"/injected/{status}/tea")).status_code == status
    assert await front.texts() == left


async def test_answer_that_does_not_fit_its_model_comes_too_late(front: Front) -> None:
    assert (await front.post("/misfit/kept")).status_code == 500
    assert await front.texts() == ["kept"]


Decorator = Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]


class Draft(BaseModel):
    """What is posted."""

    text: str
    tags: list[str] = []


class Added(Draft):
    """What is answered."""

    number: int


class Paging:
    """A dependency that is a class."""

    def __init__(self, start: int = 0, size: Annotated[int, Query(le=100)] = 10) -> None:
        self.start = start
        self.size = size


def described(decorate: Decorator) -> dict[str, Any]:
    """Give the OpenAPI document of an application whose handlers are decorated so."""
    app = FastAPI()
    router = APIRouter(prefix="/notes", tags=["notes"])

    async def reader(x_reader: Annotated[str, Header()]) -> str:
        return x_reader

    decorated_reader: Any = decorate(reader)

    @router.get("/{number}", response_model_exclude_none=True)
    @decorate
    async def get_note(number: int, reader: Annotated[str, Depends(decorated_reader)]) -> Added:
        """Give a note.

        With all its tags.
        """
        raise NotImplementedError

    @router.get("/")
    @decorate
    async def get_notes(paging: Annotated[Paging, Depends()], q: str | None = None) -> list[Added]:
        raise NotImplementedError

    @router.put("/{number}", status_code=201, responses={404: {"description": "no such note"}})
    @decorate
    async def put_note(number: int, draft: Draft, request: Request, response: Response) -> Added:
        raise NotImplementedError

    app.include_router(router)
    return app.openapi()


def test_openapi_is_as_without_the_decorator() -> None:
    document = described(transactional)
    assert document == described(lambda function: function)
    assert document["paths"]["/notes/{number}"]["get"]["description"].startswith("Give a note.")


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await lite.close()  # the pool of the client's own loop

    app = FastAPI(lifespan=lifespan)

    @app.post("/notes/{text}")
    @transactional
    async def post_note(text: str, times: int = 1) -> dict[str, int]:
        for _ in range(times):
            await write(lite, text)
        if text == "bad":
            raise Boom
        return {"times": times}

    def drive() -> None:
        with TestClient(app, raise_server_exceptions=False) as client:
            assert client.post("/notes/tea?times=2").json() == {"times": 2}
            assert client.post("/notes/bad").status_code == 500

    await asyncio.to_thread(drive)
    assert await sqlite_judge.texts() == ["tea", "tea"]
