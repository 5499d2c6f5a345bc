"""The development mode: what it tells, what it does not, and that it costs nothing when it is off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient as AiohttpClient
from aiohttp.test_utils import TestServer
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import validate_call

from tests.conftest import SqliteJudge
from tests.notes import Boom, count, write
from txkit import Database, DevelopmentWarning, atomic, new_context, run_in_new_ctx, transactional

Service = Callable[[], Awaitable[None]]


class Services:
    """Two decorated services."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @transactional
    async def debit(self) -> None:
        await write(self.db, "debit")

    @transactional
    async def credit(self) -> None:
        await write(self.db, "credit")

    @transactional
    async def fails(self) -> None:
        await write(self.db, "lost")
        raise Boom

    @atomic
    async def atomic(self) -> None:
        await write(self.db, "atomic")

    @new_context
    async def apart(self) -> None:
        await write(self.db, "apart")

    @transactional(propagation="requires_new")
    async def requires_new(self) -> None:
        await write(self.db, "new")

    @transactional(propagation="not_supported")
    async def autocommit(self) -> None:
        await write(self.db, "autocommit")


@pytest.fixture
def services(lite: Database) -> Services:
    return Services(lite)


async def told(handler: Callable[..., Any], *, status: int = 200) -> list[str]:
    """Let FastAPI call the handler, and give what the development mode says."""
    app = FastAPI()
    app.get("/")(handler)
    transport = httpx.ASGITransport(app=app)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/")).status_code == status
    return [str(one.message) for one in caught if one.category is DevelopmentWarning]


async def with_client(app: FastAPI, db: Database, talk: Callable[[TestClient], object]) -> None:
    """Talk to an application in a loop of its own."""

    def drive() -> None:
        with TestClient(app) as client:
            try:
                talk(client)
            finally:
                client.portal.call(db.close)  # type: ignore[union-attr]

    await asyncio.to_thread(drive)


class TestIsTold:
    async def test_services_one_after_the_other(self, services: Services) -> None:
        async def transfer() -> None:
            await services.debit()
            await services.credit()

        [text] = await told(transfer)
        assert (
            "test_services_one_after_the_other.<locals>.transfer, which a framework called, has no decorator"
            in text
        )
        assert "Services.debit and" in text
        assert "Services.credit, which it calls one after the other" in text
        assert "Put @transactional next to its 'async def'" in text
        assert "TXKIT_DEVELOPMENT=1" in text

    async def test_once_a_handler(self, services: Services) -> None:
        async def transfer() -> None:
            await services.debit()
            await services.credit()
            await services.atomic()

        assert len(await told(transfer)) == 1

    async def test_below_a_function_of_ones_own(self, services: Services) -> None:
        async def helper() -> None:
            await services.debit()
            await services.atomic()

        async def transfer() -> None:
            await helper()

        [text] = await told(transfer)
        assert "<locals>.transfer, which a framework called, has no decorator" in text

    async def test_place_that_is_named_is_the_handlers(self, services: Services) -> None:
        async def transfer() -> None:
            await services.debit()
            await services.credit()

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            app = FastAPI()
            app.get("/")(transfer)
            await with_client(app, services.db, lambda client: client.get("/"))
        [warning] = [one for one in caught if one.category is DevelopmentWarning]
        assert warning.filename == __file__
        assert warning.lineno == transfer.__code__.co_firstlineno

    async def test_framework_that_got_the_function_below(self, services: Services) -> None:
        async def handler() -> None:
            await services.debit()

        transactional(handler)  # and the framework does not get what it returns
        [text] = await told(handler)
        assert "is decorated, but its framework calls the function below" in text

    async def test_another_function_of_the_same_code_is_not_meant(self, services: Services) -> None:
        def logged(function: Service) -> Service:
            async def wrapper() -> None:
                await function()

            return wrapper

        transactional(logged(services.credit))
        assert await told(logged(services.debit)) == []

    async def test_as_an_error_it_leaves_what_was_committed_and_begins_nothing(
        self, services: Services, sqlite_judge: SqliteJudge
    ) -> None:
        app = FastAPI()

        @app.get("/")
        async def transfer() -> None:
            await services.debit()
            await services.credit()

        with pytest.raises(DevelopmentWarning):  # the suite's filter makes an error of it
            await with_client(app, services.db, lambda client: client.get("/"))
        assert await sqlite_judge.texts() == ["debit"]


class TestIsNotTold:
    async def test_decorated_handler(self, services: Services) -> None:
        @transactional
        async def transfer() -> None:
            await services.debit()
            await services.credit()

        assert await told(transfer) == []

    async def test_handler_in_autocommit(self, services: Services) -> None:
        @transactional(propagation="never")
        async def transfer() -> None:
            await services.debit()
            await services.credit()

        assert await told(transfer) == []

    async def test_one_service(self, services: Services) -> None:
        assert await told(services.debit) == []

        async def handler() -> None:
            await services.debit()

        assert await told(handler) == []

    async def test_same_service_again_and_again(self, services: Services) -> None:
        async def every_line() -> None:
            for _ in range(3):
                await services.debit()

        assert await told(every_line) == []

    async def test_units_that_say_that_they_are_apart(self, services: Services) -> None:
        async def handler() -> None:
            await services.debit()
            await services.apart()
            await services.requires_new()
            await services.autocommit()
            await run_in_new_ctx(services.credit)
            async with transactional():
                await services.credit()

        assert await told(handler) == []

    async def test_second_unit_after_one_that_failed(self, services: Services) -> None:
        """The audit trail of what was refused: nothing of the first is there."""

        async def handler() -> None:
            with contextlib.suppress(Boom):
                await services.fails()
            await services.debit()

        assert await told(handler) == []

    async def test_middleware_of_aiohttp_that_has_a_unit(self, services: Services) -> None:
        @web.middleware
        async def auth(request: web.Request, handler: Any) -> web.StreamResponse:
            await services.debit()
            return await handler(request)

        @transactional
        async def handler(request: web.Request) -> web.Response:
            await services.credit()
            return web.Response()

        app = web.Application(middlewares=[auth])
        app.router.add_get("/", handler)
        async with AiohttpClient(TestServer(app)) as client:  # a warning would be a 500
            assert (await client.get("/")).status == 200

    async def test_lifespan(self, services: Services) -> None:
        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI):
            await services.debit()
            await services.credit()
            yield

        app = FastAPI(lifespan=lifespan)
        await with_client(app, services.db, lambda client: client.get("/"))

    async def test_validated_handler(self, services: Services) -> None:
        @validate_call
        @transactional
        async def validated(x: int = 1) -> None:
            await services.debit()
            await services.credit()

        transactional(validate_call(services.debit))
        assert await told(validated) == []

    async def test_services_that_only_read(self, lite: Database) -> None:
        @transactional(read_only=True)
        async def one() -> None:
            await count(lite)

        @transactional(read_only=True)
        async def other() -> None:
            await count(lite)

        async def handler() -> None:
            await one()
            await other()

        assert await told(handler) == []

    async def test_side_by_side(self, lite: Database) -> None:
        @transactional
        async def one() -> None: ...

        @transactional
        async def other() -> None: ...

        async def handler() -> None:
            await asyncio.gather(one(), other())

        assert await told(handler) == []

    async def test_dependency_and_handler(self, services: Services) -> None:
        async def handler(_: None = Depends(services.debit)) -> None:
            await services.credit()

        assert await told(handler) == []

    async def test_two_messages_of_a_socket(self, services: Services) -> None:
        app = FastAPI()

        @app.websocket("/ws")
        async def messages(socket: WebSocket) -> None:
            await socket.accept()
            async for _ in socket.iter_text():
                await services.debit()
                await socket.send_text("done")

        def talk(client: TestClient) -> None:
            with client.websocket_connect("/ws") as socket:
                for _ in range(2):
                    socket.send_text("go")
                    assert socket.receive_text() == "done"

        await with_client(app, services.db, talk)  # a warning would be an error

    async def test_no_framework_is_there(self, services: Services) -> None:
        await services.debit()  # this test is no handler
        await services.credit()


@pytest.mark.parametrize("kind", ["timeout", "group", "task"])
async def test_nothing_of_a_handler_is_kept_once_its_task_is_done(
    services: Services, kind: str
) -> None:
    """Its locals may refer to the task itself."""

    class Local: ...

    kept: list[weakref.ref[Local]] = []

    async def handler() -> None:
        mine = Local()
        kept.append(weakref.ref(mine))
        task = asyncio.current_task() if kind == "task" else None
        block = asyncio.TaskGroup() if kind == "group" else asyncio.timeout(60)
        async with block:
            await services.debit()
        del task

    task = asyncio.create_task(told(handler))
    assert await task == []
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert [one() for one in kept] == [None]


PROGRAM = """
from txkit._core import development
from txkit._core.boundary import entries, unit
print(development.IS_ON, entries._run_unit is unit.run_unit)
"""


@pytest.mark.parametrize(
    ("setting", "printed"),
    [(None, "False True"), ("0", "False True"), ("1", "True False")],
)
def test_off_it_is_on_no_calls_way(setting: str | None, printed: str) -> None:
    """Off, what runs a unit is the very function that runs it: no branch, no frame."""
    settings = {name: value for name, value in os.environ.items() if name != "TXKIT_DEVELOPMENT"}
    if setting is not None:
        settings["TXKIT_DEVELOPMENT"] = setting
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == printed
