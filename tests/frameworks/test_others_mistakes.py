"""Wrong programs with the less used frameworks, and what decorating says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
import strawberry
from aiogram import Router
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from arq import cron
from arq.worker import func
from blacksheep import Application
from blacksheep import Router as BlackSheepRouter
from blacksheep.server.openapi.v3 import OpenAPIHandler
from dishka import Provider, make_async_container
from falcon.asgi import App
from mcp.server import MCPServer
from openapidocs.v3 import Info
from taskiq import InMemoryBroker

from txkit import transactional


async def asynchronous() -> None: ...


class TestAboveTheRoute:
    def test_blacksheep(self) -> None:
        app = Application(router=BlackSheepRouter())
        with pytest.raises(TypeError, match="to blacksheep "):

            @transactional
            @app.router.get("/")
            async def handler() -> None: ...

    def test_mcp(self) -> None:
        server = MCPServer("wrong")
        for route in (server.tool(), server.prompt(), server.resource("notes://all")):
            with pytest.raises(TypeError, match="to mcp "):

                @transactional
                @route
                async def handler() -> str: ...

    def test_aiogram(self) -> None:
        router = Router()
        for route in (router.message(), router.errors()):
            with pytest.raises(TypeError, match="to aiogram "):

                @transactional
                @route
                async def handler(message: Any) -> None: ...

    def test_apscheduler(self) -> None:
        scheduler = AsyncIOScheduler()
        with pytest.raises(TypeError, match="to apscheduler "):

            @transactional
            @scheduler.scheduled_job("interval", seconds=60)
            async def job() -> None: ...

    def test_taskiq_event(self) -> None:
        broker = InMemoryBroker()
        with pytest.raises(TypeError, match="to taskiq "):

            @transactional
            @broker.on_event("startup")
            async def started(state: Any) -> None: ...


def test_documentation_of_blacksheep_may_stand_below() -> None:
    docs = OpenAPIHandler(info=Info(title="notes", version="1"))

    @transactional
    @docs(summary="Make a transfer")
    async def post_transfer(amount: int) -> None: ...


OBJECTS: list[tuple[str, Callable[[], object]]] = [
    ("taskiq's AsyncTaskiqDecoratedTask", lambda: InMemoryBroker().task(asynchronous)),
    ("arq's Function", lambda: func(asynchronous)),
    ("arq's CronJob", lambda: cron(asynchronous)),
    ("strawberry's StrawberryField", lambda: strawberry.field(asynchronous)),
    ("strawberry's StrawberryField", lambda: strawberry.mutation(asynchronous)),
    ("strawberry's StrawberryField", lambda: strawberry.subscription(asynchronous)),
    ("aiogram's Router", Router),
    ("apscheduler's Job", lambda: AsyncIOScheduler().add_job(asynchronous)),
    ("dishka's AsyncContainer", lambda: make_async_container(Provider())),
    ("grpc's RpcMethodHandler", lambda: grpc.unary_unary_rpc_method_handler(asynchronous)),
    ("mcp's MCPServer", lambda: MCPServer("wrong")),
    ("falcon's App", App),
    ("blacksheep's Application", lambda: Application(router=BlackSheepRouter())),
]


@pytest.mark.parametrize(("what", "make"), OBJECTS)
def test_framework_s_object_is_refused(what: str, make) -> None:
    with pytest.raises(TypeError, match=f"{what} object.*next to your 'async def', below"):
        transactional(make())
