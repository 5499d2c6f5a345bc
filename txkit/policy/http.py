"""Read the HTTP status of an answer, without importing a framework.

A response is what has a known framework's response class on its MRO, by dotted
name; an ORM row or an HTTP client's response that happens to have a ``status``
is none. The same holds for exceptions. Seen on nine frameworks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter, methodcaller
from typing import Any, TypeAlias

_Reader: TypeAlias = Callable[[Any], object]

_OK = 200


def _code_of_werkzeug(error: Any) -> object:
    """Read the status of what ``abort`` raises: of a response, where it was given one."""
    return error.code if error.response is None else error.response.status_code


_RESPONSES: dict[str, _Reader] = {
    "aiohttp.web_response.StreamResponse": attrgetter("status"),
    "blacksheep.messages.Response": attrgetter("status"),
    "django.http.response.HttpResponseBase": attrgetter("status_code"),
    "falcon.response.Response": attrgetter("status"),
    "litestar.response.base.ASGIResponse": attrgetter("status_code"),
    "litestar.response.base.Response": attrgetter("status_code"),
    "sanic.response.types.BaseHTTPResponse": attrgetter("status"),
    "sanic.response.types.ResponseStream": attrgetter("status"),
    "starlette.responses.Response": attrgetter("status_code"),
    "tornado.web.RequestHandler": methodcaller("get_status"),
    "txkit.policy.views.ViewAnswer": attrgetter("status"),
    "werkzeug.sansio.response.Response": attrgetter("status_code"),
}

_ERRORS: dict[str, _Reader] = {
    "aiohttp.web_exceptions.HTTPException": attrgetter("status"),
    "blacksheep.exceptions.HTTPException": attrgetter("status"),
    "falcon.http_error.HTTPError": attrgetter("status"),
    "falcon.http_status.HTTPStatus": attrgetter("status"),
    "litestar.exceptions.http_exceptions.HTTPException": attrgetter("status_code"),
    "sanic.exceptions.SanicException": attrgetter("status_code"),
    "starlette.exceptions.HTTPException": attrgetter("status_code"),
    "tornado.web.Finish": lambda _: _OK,
    "tornado.web.HTTPError": attrgetter("status_code"),
    "werkzeug.exceptions.HTTPException": _code_of_werkzeug,
}


def is_response(value: object) -> bool:
    """Whether ``value`` is a known framework's response object."""
    return _response_reader(type(value)) is not None  # type: ignore[arg-type]


def response_status(value: object) -> int | None:
    """Read the status of a response; None where it is none, or has none yet."""
    reader = _response_reader(type(value))  # type: ignore[arg-type]
    return None if reader is None else _number(reader(value))


def error_status(error: BaseException) -> int | None:
    """Read the status of an HTTP exception; None where it is none, or has none."""
    reader = _error_reader(type(error))  # type: ignore[arg-type]
    return None if reader is None else _number(reader(error))


@lru_cache(maxsize=1024)
def _response_reader(cls: type) -> _Reader | None:
    return _find(cls, _RESPONSES)


@lru_cache(maxsize=1024)
def _error_reader(cls: type) -> _Reader | None:
    return _find(cls, _ERRORS)


def _find(cls: type, readers: dict[str, _Reader]) -> _Reader | None:
    for base in cls.__mro__:
        reader = readers.get(f"{base.__module__}.{base.__qualname__}")
        if reader is not None:
            return reader
    return None


def _number(status: object) -> int | None:
    if isinstance(status, int):
        return int(status)
    text = str(status)[:3]  # falcon's "404 Not Found"
    return int(text) if text.isdigit() else None
