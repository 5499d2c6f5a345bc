"""Wrong programs, and what decorating says: the most used frameworks, and what is no mistake.

The same for the others is in test_others_mistakes.py, decorating twice in test_twice.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from aiohttp import web
from django.dispatch import Signal, receiver
from django.views import View
from django.views.decorators.http import require_POST
from fastapi import APIRouter, FastAPI
from faststream import FastStream
from faststream.redis import RedisBroker
from litestar import Litestar, get
from litestar.di import Provide
from pydantic import validate_call
from quart import Blueprint, Quart
from sanic import Blueprint as SanicBlueprint
from sanic import Sanic
from starlette.applications import Starlette
from starlette.routing import Router
from tornado.web import Application as TornadoApplication

from tests.frameworks.test_twice import log
from txkit import atomic, new_context, transactional

Sanic.test_mode = True
KEPT: list[Any] = []


def keep(function: Any) -> Any:
    """Be a decorator of nobody's framework that keeps what it is given."""
    KEPT.append(function)
    return function


class TestAboveTheRoute:
    """The route's decorator gives the function back, and has kept it undecorated."""

    def test_fastapi(self) -> None:
        for router in (FastAPI(), APIRouter()):
            for route in (router.get("/"), router.websocket("/ws")):
                with pytest.raises(
                    TypeError, match="stands above.*to fastapi .*next to the 'async"
                ):

                    @transactional
                    @route
                    async def handler() -> None: ...

    @pytest.mark.parametrize("decorator", [atomic, new_context, transactional(name="x")])
    def test_each_of_the_decorators(self, decorator) -> None:
        with pytest.raises(TypeError, match="stands above"):

            @decorator
            @FastAPI().get("/")
            async def handler() -> None: ...

    def test_fastapi_exception_handler(self) -> None:
        with pytest.raises(TypeError, match="to fastapi"):

            @transactional
            @FastAPI().exception_handler(KeyError)
            async def handler(request, error) -> None: ...

    def test_quart(self) -> None:
        for app in (Quart(__name__), Blueprint("notes", __name__)):
            with pytest.raises(TypeError, match="to (quart|flask) "):

                @transactional
                @app.get("/")
                async def handler() -> None: ...

    def test_sanic(self) -> None:
        for app in (Sanic("mistaken", configure_logging=False), SanicBlueprint("notes")):
            with pytest.raises(TypeError, match="to sanic"):

                @transactional
                @app.get("/")
                async def handler(request) -> None: ...

    def test_aiohttp(self) -> None:
        routes = web.RouteTableDef()
        with pytest.raises(TypeError, match="to aiohttp "):

            @transactional
            @routes.get("/")
            async def handler(request) -> None: ...

    def test_typer(self) -> None:
        app = typer.Typer()
        for route in (app.command(), app.callback()):
            with pytest.raises(TypeError, match="to typer "):

                @transactional
                @route
                async def command() -> None: ...

    def test_click_s_callback_for_results(self) -> None:
        group = click.Group()
        with pytest.raises(TypeError, match="to click "):

            @transactional
            @group.result_callback()
            async def look(result) -> None: ...

    def test_faststream_s_start(self) -> None:
        app = FastStream(RedisBroker())
        for hook in (app.on_startup, app.after_startup):
            with pytest.raises(TypeError, match="to fast_depends "):

                @transactional
                @hook
                async def start() -> None: ...

    def test_another_decorator_in_between(self) -> None:
        with pytest.raises(TypeError, match="to fastapi "):

            @transactional
            @keep
            @FastAPI().get("/")
            async def handler() -> None: ...

    def test_another_decorator_in_between_that_wraps_it(self) -> None:
        """In the development mode: a wrapper always holds its function, so it takes a search."""
        with pytest.raises(TypeError, match="to fastapi "):

            @transactional
            @log
            @FastAPI().get("/")
            async def handler() -> None: ...

    def test_method(self) -> None:
        with pytest.raises(TypeError, match="to fastapi .*"):

            class Service:
                @transactional
                @FastAPI().get("/")
                async def handler() -> None: ...


OBJECTS: list[tuple[str, Callable[[], object]]] = [
    ("fastapi's FastAPI", FastAPI),
    ("starlette's Starlette", Starlette),
    ("starlette's Router", Router),
    ("litestar's get", lambda: get("/")(lambda: None)),
    ("litestar's Litestar", lambda: Litestar([])),
    ("litestar's Provide", lambda: Provide(asynchronous)),
    ("quart's Quart", lambda: Quart(__name__)),
    ("sanic's Sanic", lambda: Sanic("mistaken", configure_logging=False)),
    ("tornado's Application", TornadoApplication),
    ("faststream's FastStream", lambda: FastStream(RedisBroker())),
    ("faststream's HandlerCallWrapper", lambda: RedisBroker().subscriber("x")(asynchronous)),
    ("faststream's HandlerCallWrapper", lambda: RedisBroker().publisher("x")(asynchronous)),
    ("click's Command", lambda: click.command()(asynchronous)),
    ("typer's Typer", typer.Typer),
    ("aiohttp's RouteDef", lambda: web.get("/", asynchronous)),
    ("aiohttp's Application", web.Application),
]


async def asynchronous() -> None: ...


@pytest.mark.filterwarnings("ignore:.*:litestar.utils.warnings.LitestarWarning")
@pytest.mark.parametrize("decorator", [transactional, atomic(current_transaction="append")])
@pytest.mark.parametrize(("what", "make"), OBJECTS)
def test_framework_s_object_is_refused(decorator, what: str, make) -> None:
    with pytest.raises(TypeError, match=f"{what} object.*next to your 'async def', below"):
        decorator(make())


def test_view_class_is_refused_and_its_methods_named_and_so_is_its_view() -> None:
    class Notes(View):
        async def get(self, request) -> None: ...

        async def post(self, request) -> None: ...

    with pytest.raises(TypeError, match=r"can't decorate the class .*Notes.*\(get, post\), where"):
        transactional(Notes)
    with pytest.raises(
        TypeError, match=r"calls the methods of its class: put it on those \(get, post\)"
    ):
        transactional(Notes.as_view())


def test_receiver_of_a_django_signal() -> None:
    """The signal refers to it weakly, which is not counted."""
    signal = Signal()
    with pytest.raises(TypeError, match="to django "):

        @transactional
        @receiver(signal)  # noqa: DJ013 - that is the mistake
        async def hear(sender, **_: object) -> None: ...


class TestNoMistake:
    def test_the_right_order(self) -> None:
        @FastAPI().get("/")
        @transactional
        async def handler() -> None: ...

        @transactional
        @validate_call
        async def validated(x: int) -> None: ...

        @validate_call
        @transactional
        async def validating(x: int) -> None: ...

    def test_registry_of_ones_own(self) -> None:
        @transactional
        @keep
        async def function() -> None: ...

        assert KEPT.pop() is function.__wrapped__

    def test_registry_of_ones_own_in_an_applications_state(self) -> None:
        app, site, jobs = FastAPI(), web.Application(), web.AppKey("jobs", list)
        app.state.jobs = site[jobs] = []

        @transactional
        @(lambda function: app.state.jobs.append(function) or function)
        async def nightly() -> None: ...

        assert site[jobs] == [nightly.__wrapped__]

    def test_what_is_known_about_a_function_by_another_handler(self) -> None:
        app, permissions = FastAPI(), {}

        @app.get("/help")
        async def help_() -> list[str]:
            return [one.__name__ for one in permissions]

        @transactional
        @(lambda function: permissions.setdefault(function, "admin") and function)
        async def handler() -> None: ...

        kept = app.state.kept = {"handler": handler.__wrapped__}
        assert kept["handler"] in permissions

    def test_wrappers_of_ones_own_and_of_a_framework(self) -> None:
        @transactional
        @log
        @log
        async def logged() -> None: ...

        @transactional
        @require_POST
        async def posted(request) -> None: ...

        @transactional
        @log
        @validate_call
        async def validated(x: int) -> None: ...

    def test_undecorated_in_a_framework_and_decorated_elsewhere_on_purpose(self) -> None:
        app = FastAPI()

        @app.get("/")
        async def handler() -> None: ...

        assert transactional(handler) is not handler


FIRST = """
from fastapi import FastAPI
from txkit import transactional
app = FastAPI()
@transactional
@app.get('/')
async def handler(): ...
"""
MANY = """
import gc
from txkit import transactional
from txkit.decorators import mistakes
searches, kept = [], []
search = mistakes._holder
def counted(function):
    searches.append(function)
    return search(function)
mistakes._holder = counted
ballast = [[] for _ in range(1_000_000)]
for _ in range(1000):
    @transactional
    @(lambda function: kept.append(function) or function)
    async def function(): ...
print(len(searches))
"""


def program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(text)
    command = [sys.executable, "-c", "import program"]
    settings = {**os.environ, "TXKIT_DEVELOPMENT": "0"}
    return subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, check=False
    )


def test_the_first_function_of_a_process_is_looked_at(tmp_path: Path) -> None:
    ran = program(tmp_path, FIRST)
    assert ran.returncode == 1
    assert "TypeError: @transactional stands above the decorator that gave" in ran.stderr


def test_no_more_than_half_a_second_is_searched_in_vain(tmp_path: Path) -> None:
    """A thousand functions in a registry of one's own, in a process with a million objects."""
    ran = program(tmp_path, MANY)
    assert 1 <= int(ran.stdout) < 100
