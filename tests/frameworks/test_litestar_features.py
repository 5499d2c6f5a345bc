"""Litestar: what it has besides routes, and what it makes of a handler's signature."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from litestar import Controller, Litestar, Request, Response, Router, get, post, put, websocket
from litestar.connection import WebSocket
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter
from litestar.testing import AsyncTestClient

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


def application(services: MoreServices) -> Litestar:
    class Views(Controller):
        path = "/view"

        @post("/{text:str}")
        @transactional
        async def post(self, text: FromPath[str]) -> str:
            return await services.view(text)

    @transactional
    async def pair(text: FromPath[str]) -> AsyncIterator[str]:
        await services.write(f"{text} before")
        yield text
        await services.write(f"{text} after")

    @transactional
    async def need(text: FromPath[str]) -> str:
        return await services.need(text)

    @post("/needs/{text:str}", dependencies={"needed": Provide(need)})
    @transactional
    async def needs(needed: NamedDependency[str]) -> str:
        return await services.view(needed)

    @post("/pair/{text:str}", dependencies={"value": Provide(pair)})
    @transactional
    async def paired(value: NamedDependency[str]) -> str:
        return await services.view(value)

    def answer(_: Request[Any, Any, Any], error: KeyError) -> Response[str]:
        return Response(str(error), status_code=200)

    @post("/handled/{text:str}", exception_handlers={KeyError: answer})
    @transactional
    async def handled(text: FromPath[str]) -> None:
        await services.write(text)
        raise KeyError(text)

    @websocket("/whole")
    @transactional
    async def whole(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        while (text := await socket.receive_text()) != "end":
            await socket.send_text(await services.message(text))
        await socket.close()

    return Litestar([Views, needs, paired, handled, whole], openapi_config=None)


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    async with asgi_server(application(services)) as port, front_of(port, services, pg) as one:
        yield one


class TestViews(ViewContract):
    """Controller."""


class TestDependencies(InjectionContract):
    """Provide."""


class TestGeneratorDependency(PairContract):
    at_first_byte = ("tea before", "tea", "tea after")  # it ends before the response


class TestErrorHandlers(ErrorHandlerContract):
    """exception_handlers."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


class TestWholeSocket(WholeSocketContract):
    """The endpoint is decorated."""


Decorator = Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]


@dataclass
class Draft:
    """What is posted."""

    text: str
    tags: list[str]


def described(decorate: Decorator) -> dict[str, Any]:
    """Give the OpenAPI document of an application whose handlers are decorated so."""

    async def reader(x_reader: Annotated[str, HeaderParameter(name="x-reader")]) -> str:
        return x_reader

    class Notes(Controller):
        path = "/notes"
        tags = ("notes",)  # type: ignore[assignment]

        @get("/{number:int}", dependencies={"reader": Provide(decorate(reader))})
        @decorate
        async def get_note(self, number: FromPath[int], reader: NamedDependency[str]) -> Draft:
            """Give a note.

            With all its tags.
            """
            raise NotImplementedError

        @put("/{number:int}", status_code=201)
        @decorate
        async def put_note(
            self, number: FromPath[int], data: JSONBody[Draft], request: Request[Any, Any, Any]
        ) -> Draft:
            raise NotImplementedError

    @get("/")
    @decorate
    async def get_notes(
        start: Annotated[int, QueryParameter(ge=0)] = 0, q: FromQuery[str | None] = None
    ) -> list[Draft]:
        raise NotImplementedError

    return Litestar([Router("/all", route_handlers=[get_notes]), Notes]).openapi_schema.to_schema()


def test_openapi_is_as_without_the_decorator() -> None:
    document = described(transactional)
    assert document == described(lambda function: function)
    parameters = document["paths"]["/notes/{number}"]["get"]["parameters"]
    assert {one["name"] for one in parameters} == {"number", "x-reader"}


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @post("/notes/{text:str}")
    @transactional
    async def post_note(text: FromPath[str], times: FromQuery[int] = 1) -> dict[str, int]:
        for _ in range(times):
            await write(lite, text)
        if text == "bad":
            raise Boom
        return {"times": times}

    app = Litestar([post_note], openapi_config=None)
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        assert (await client.post("/notes/tea?times=2")).json() == {"times": 2}
        assert (await client.post("/notes/bad")).status_code == 500
    assert await sqlite_judge.texts() == ["tea", "tea"]
