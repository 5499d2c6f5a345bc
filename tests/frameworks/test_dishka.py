"""dishka, as an injector in front of decorated functions; txkit knows nothing of its containers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from dishka import AsyncContainer, FromDishka, Provider, Scope, make_async_container
from dishka.integrations.base import wrap_injection
from dishka.integrations.fastapi import inject as inject_fastapi
from dishka.integrations.fastapi import setup_dishka
from fastapi import FastAPI

from tests.conftest import PostgresJudge
from tests.frameworks.work import SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, in_transaction, transactional


class Service:
    def __init__(self, db: Database) -> None:
        self.db = db

    @transactional
    async def add(self, text: str) -> str:
        return await work(self.db, text)


@transactional
async def remembered(db: Database) -> str:
    """A factory that needs the database."""
    await write(db, "factory")
    return "remembered"


@pytest.fixture
async def container(db: Database) -> AsyncIterator[AsyncContainer]:
    provider = Provider(scope=Scope.APP)
    provider.provide(lambda: db, provides=Database)
    provider.provide(Service)
    provider.provide(remembered, scope=Scope.REQUEST)
    one = make_async_container(provider)
    yield one
    await one.close()


def injector(container: AsyncContainer) -> Callable[[Any], Any]:
    def inject(function: Any) -> Any:
        return wrap_injection(
            func=function,
            container_getter=lambda _args, _kwargs: container,
            is_async=True,
            manage_scope=True,
        )

    return inject


async def take(text: str, service: FromDishka[Service], times: int = 1) -> str:
    """Take a note."""
    await write(service.db, "first")
    return await service.add(text)


async def test_injected_signature_is_that_of_the_undecorated_function(
    container: AsyncContainer,
) -> None:
    inject = injector(container)
    views = [
        (inspect.signature(one), one.__annotations__, one.__doc__, one.__name__)
        for one in (inject(take), inject(transactional(take)))
    ]
    assert list(views[0][0].parameters) == ["text", "times"]
    assert views[0] == views[1]


async def test_injected_function_is_a_unit(pg: PostgresJudge, container: AsyncContainer) -> None:
    function = injector(container)(transactional(take))
    assert await function("good") == "good done"
    assert await pg.texts() == ["first", "good"]
    with pytest.raises(Boom):
        await function("bad")
    assert await pg.texts() == ["first", "good"]


@pytest.mark.parametrize("inside", [False, True], ids=["before", "inside"])
async def test_what_is_injected_is_made_before_the_unit_or_inside_with_the_decorators_swapped(
    db: Database, pg: PostgresJudge, container: AsyncContainer, inside: bool
) -> None:
    inject = injector(container)

    async def take(text: str, factory: FromDishka[str]) -> None:
        assert factory == "remembered"
        assert in_transaction(db) is inside
        await work(db, text)

    function = transactional(inject(take)) if inside else inject(transactional(take))
    with pytest.raises(Boom):
        await function("bad")
    assert await pg.texts() == ([] if inside else ["factory"])


async def test_injected_stream_is_a_unit(
    db: Database, pg: PostgresJudge, container: AsyncContainer
) -> None:
    async def stream(text: str, service: FromDishka[Service]) -> AsyncIterator[str]:
        for word in text.split():
            yield await service.add(word)

    function = injector(container)(transactional(stream))
    assert [one async for one in function("one two")] == ["one done", "two done"]
    assert await pg.texts() == ["one", "two"]
    with pytest.raises(Boom):
        assert [one async for one in function("three bad")]
    assert await pg.texts() == ["one", "two"]


async def test_injected_functions_side_by_side_do_not_meet(db: Database, pg: PostgresJudge) -> None:
    provider = Provider(scope=Scope.APP)
    both = SideBySide(db)
    provider.provide(lambda: both, provides=SideBySide)
    container = make_async_container(provider)

    async def take(text: str, both: FromDishka[SideBySide]) -> str:
        return await both.work(text)

    function = injector(container)(transactional(take))
    good, bad = await asyncio.gather(function("good"), function("bad"), return_exceptions=True)
    assert good == "good done"
    assert isinstance(bad, Boom)
    assert await pg.texts() == ["good"]
    await container.close()


async def test_handler_of_a_framework_is_injected_above_the_decorator(
    pg: PostgresJudge, container: AsyncContainer
) -> None:
    app = FastAPI()

    @app.post("/notes/{text}")
    @inject_fastapi
    @transactional
    async def post(text: str, service: FromDishka[Service]) -> str:
        return await service.add(text)

    setup_dishka(container, app)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/notes/good")).json() == "good done"
        assert await pg.texts() == ["good"]
        with pytest.raises(Boom):
            await client.post("/notes/bad")
        (operation,) = (await client.get("/openapi.json")).json()["paths"].values()
    assert [one["name"] for one in operation["post"]["parameters"]] == ["text"]
    assert await pg.texts() == ["good"]


async def test_injected_handler_without_a_decorator_is_told_by_its_name(
    db: Database, pg: PostgresJudge, container: AsyncContainer
) -> None:
    """And not by that of the function which dishka generates around it."""
    transfer = Transfer(db, pg)
    app = FastAPI()

    @app.post("/")
    @inject_fastapi
    async def post(service: FromDishka[Service]) -> None:
        await transfer.debit()
        await transfer.credit()

    setup_dishka(container, app)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with transfer.is_told("post"):
            assert (await client.post("/")).status_code == 200
    assert await pg.texts() == ["debit", "credit"]
