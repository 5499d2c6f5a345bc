"""Django: async views, served through its ASGI application, without its ORM."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.test import AsyncClient
from django.test.utils import override_settings
from django.urls import path
from django.views import View
from django.views.decorators.http import require_POST

from tests.conftest import PostgresJudge, SqliteJudge
from tests.frameworks.asgi import asgi_server
from tests.frameworks.web import (
    AnswerContract,
    BackgroundContract,
    Front,
    SideBySideContract,
    StreamContract,
    UndecoratedContract,
    front_of,
)
from tests.frameworks.web_features import (
    ErrorHandlerContract,
    MoreServices,
    RefusedCommitContract,
    ViewContract,
    services,
)
from tests.notes import Boom, write
from txkit import Database, after_commit, new_context, transactional

__all__ = ["services"]

if not settings.configured:  # once in a process, in which docs/frameworks/django.md may run, too
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", LOGGING_CONFIG=None)

ERRORS = {400: BadRequest, 403: PermissionDenied, 404: Http404}


def urls(services: MoreServices) -> tuple[Any, ...]:
    @transactional
    async def post_note(request: HttpRequest, text: str) -> HttpResponse:
        await services.write(text)
        try:
            times = int(request.GET.get("times", "1"))
        except ValueError:
            return HttpResponseBadRequest()
        await services.write(text, times - 1)
        return JsonResponse({"text": text, "times": times}, status=201)

    async def apart(request: HttpRequest, text: str) -> HttpResponse:
        await services.apart(text)
        return HttpResponse()

    @transactional
    async def fails(request: HttpRequest, text: str) -> HttpResponse:
        await services.write(text)
        raise Boom

    @transactional
    async def raises(request: HttpRequest, status: int, text: str) -> HttpResponse:
        await services.write(text)
        raise ERRORS[status]

    @transactional
    async def returns(request: HttpRequest, status: int, text: str) -> HttpResponse:
        await services.write(text)
        return HttpResponse(status=status)

    @transactional
    async def redirected(request: HttpRequest, text: str) -> HttpResponse:
        await services.write(text)
        return HttpResponseRedirect("/elsewhere")

    @transactional
    async def waits(request: HttpRequest, text: str) -> HttpResponse:
        await services.write(text)
        await services.meetings[text].wait()
        return HttpResponse("done")

    async def stream(request: HttpRequest, text: str) -> StreamingHttpResponse:
        return StreamingHttpResponse(services.lines(text))

    running: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if error := task.exception():
            logging.getLogger(__name__).error("background work failed", exc_info=error)

    @transactional
    async def later(request: HttpRequest, text: str) -> HttpResponse:
        def start() -> None:
            task = asyncio.create_task(new_context(services.later)(text))
            running.add(task)
            task.add_done_callback(ended)

        await services.write(f"{text} now")
        after_commit(start)
        return HttpResponse()

    class Views(View):
        @transactional
        async def post(self, request: HttpRequest, text: str) -> HttpResponse:
            return HttpResponse(await services.view(text))

    @require_POST
    @transactional
    async def handled(request: HttpRequest, text: str) -> HttpResponse:
        await services.write(text)
        raise KeyError(text)

    return (
        path("notes/<str:text>", post_note),
        path("apart/<str:text>", apart),
        path("fails/<str:text>", fails),
        path("raises/<int:status>/<str:text>", raises),
        path("returns/<int:status>/<str:text>", returns),
        path("redirected/<str:text>", redirected),
        path("waits/<str:text>", waits),
        path("stream/<str:text>", stream),
        path("later/<str:text>", later),
        path("view/<str:text>", Views.as_view()),
        path("handled/<str:text>", handled),
    )


class AnswersForKeyErrors:
    """The application's error handler, which is a middleware in Django."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    async def __call__(self, request: HttpRequest) -> Any:
        return await self.get_response(request)

    async def process_exception(self, request: HttpRequest, error: Exception) -> Any:
        return HttpResponse(str(error)) if isinstance(error, KeyError) else None


MIDDLEWARE = [f"{__name__}.{AnswersForKeyErrors.__name__}"]


class Application(ASGIHandler):
    """When a streamed body fails Django leaves a request's own file open, and Python warns."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[Any] = []

    async def read_body(self, receive: Any) -> Any:
        self.bodies.append(await super().read_body(receive))
        return self.bodies[-1]


@pytest.fixture
async def front(services: MoreServices, pg: PostgresJudge) -> AsyncIterator[Front]:
    with override_settings(ROOT_URLCONF=urls(services), MIDDLEWARE=MIDDLEWARE):
        get_asgi_application()  # sets Django up
        application = Application()
        async with asgi_server(application) as port, front_of(port, services, pg) as one:
            yield one
        for body in application.bodies:
            body.close()


class TestAnswers(AnswerContract):
    """Of HTTP errors Django has only three to raise, and no redirect."""

    refuses_arguments = 400

    @pytest.mark.parametrize(
        ("way", "status"),
        [
            *(("raises", status) for status in ERRORS),
            *(("returns", one) for one in (404, 409, 503)),
        ],
    )
    async def test_error_status_rolls_back(self, front: Front, way: str, status: int) -> None:
        await super().test_error_status_rolls_back(front, way, status)

    @pytest.mark.parametrize("way", ["redirected"])
    async def test_redirect_commits(self, front: Front, way: str) -> None:
        await super().test_redirect_commits(front, way)


class TestUndecorated(UndecoratedContract):
    """The mistake that the development mode tells."""


class TestSideBySide(SideBySideContract):
    on_disconnect = "is cancelled"


class TestStreams(StreamContract):
    """StreamingHttpResponse."""


class TestBackground(BackgroundContract):
    """Django has none of its own: a task that a hook starts after the commit."""


class TestViews(ViewContract):
    """View."""


class TestErrorHandlers(ErrorHandlerContract):
    """process_exception of a middleware."""


class TestRefusedCommit(RefusedCommitContract):
    """A deferred constraint."""


async def test_decorator_of_django_goes_above(front: Front) -> None:
    assert (await front.client.get("/handled/lost")).status_code == 405
    assert await front.texts() == []


async def test_the_test_client_drives_a_decorated_handler(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional
    async def post_note(request: HttpRequest, text: str) -> HttpResponse:
        await write(lite, text)
        if text == "bad":
            raise Boom
        return HttpResponse(status=201)

    with override_settings(ROOT_URLCONF=(path("notes/<str:text>", post_note),)):
        client = AsyncClient(raise_request_exception=False)
        assert (await client.post("/notes/tea")).status_code == 201
        assert (await client.post("/notes/bad")).status_code == 500
    assert await sqlite_judge.texts() == ["tea"]
