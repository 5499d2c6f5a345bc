"""Which callables can be decorated, and what to say about the others.

Refused when decorating, since a sync function or an async generator in an
``async def`` wrapper would silently become a broken coroutine.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any


def refuse_undecorable(decorator: str, function: Any) -> None:
    """Raise unless ``function`` is a coroutine function, and say what to do instead."""
    name = qualified_name(function)
    if isinstance(function, type):
        message = f"{decorator} can't decorate the class {name}: put it on the methods that need it"
    elif inspect.isasyncgenfunction(function):
        message = (
            f"{decorator} can't decorate the async generator {name}: decorate the coroutine"
            " function that consumes it"
        )
    elif not callable(function):
        message = (
            f"{decorator} decorates coroutine functions, and {function!r} can't be called"
            " (a Database is covered without being named, but by @atomic(db))"
        )
    elif inspect.isbuiltin(function):
        message = f"{decorator} can't decorate the builtin {name}: wrap it in an 'async def'"
    elif _is_coroutine_function(function):
        return
    elif _is_function(function):
        message = (
            f"{decorator} needs a coroutine function, and {name} is none: make it 'async def', or, if"
            f" another decorator wrapped it, put {decorator} below that one, next to the function"
        )
    else:
        kind: type[Any] = type(function)
        message = (
            f"{decorator} was given a {kind.__module__}.{kind.__qualname__} object, which is no"
            f" function any more: put {decorator} below the decorator that made it, next to the"
            " 'async def'"
        )
    raise TypeError(message)


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        not _is_function(function)
        and inspect.iscoroutinefunction(getattr(_class_of(function), "__call__", None))  # noqa: B004
    )


def _is_function(function: Any) -> bool:
    """Whether it is a function itself; a callable object may be a descriptor too."""
    return inspect.isfunction(function) or inspect.ismethod(function)


def qualified_name(function: Any) -> str:
    """Name a callable as errors show it: module and qualified name."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else _class_of(function)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


def _class_of(value: object) -> type[Any]:
    return type(value)
