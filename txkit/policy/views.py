"""Read the status of a tuple that a view of Quart returns: ``return {...}, 409``.

A tuple is an answer in one place only, where the framework takes it for one: as the result
of the function that it called for the request. From any other function it is data. Quart is
not imported: where a request runs, it is there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any


class ViewAnswer:
    """The status that a tuple names, in the shape of a response."""

    def __init__(self, status: object) -> None:
        self.status = status


def find_answer(function: object, result: tuple[Any, ...]) -> object:
    """Give what Quart will answer, if ``function`` is the view of the running request.

    A status beside the body counts; without one the body does, which may be a response.
    """
    quart: Any = sys.modules.get("quart")
    if quart is None or not quart.has_request_context():
        return None
    request = quart.request
    view = quart.current_app.view_functions.get(request.endpoint)
    if not any(one is function for one in _functions_of(view, request.method.lower())):
        return None
    if len(result) > 1 and isinstance(result[1], int):
        return ViewAnswer(result[1])
    return result[0] if result else None


def _functions_of(view: Any, method: str) -> Iterator[object]:
    """Give a view, the method of its class, and what these wrap."""
    cls = getattr(view, "view_class", None)
    names = (method, "get" if method == "head" else method, "dispatch_request")
    for one in (view, *(getattr(cls, name, None) for name in names)):
        function = one
        while function is not None:
            yield function
            is_partial = isinstance(function, functools.partial)
            function = function.func if is_partial else getattr(function, "__wrapped__", None)
