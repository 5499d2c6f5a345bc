"""Which callables can be decorated or be a hook, and what to say about the others.

Refused when decorating, since a sync function in an ``async def`` wrapper would
silently become a broken coroutine.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from txkit.policy.frameworks import is_of_a_framework

_MOST_SHOWN = 3


def refuse_undecorable(decorator: str, function: Any) -> None:
    """Raise unless ``function`` is a coroutine function, and say what to do instead."""
    name = qualified_name(function)
    if isinstance(function, type):
        message = (
            f"{decorator} can't decorate the class {name}: put it on the methods that need it"
            f"{_methods_of(function)}, where a reader sees which of them is a transaction"
        )
    elif owner := _framework_of(function):
        message = (
            f"{decorator} was given {owner}'s {type(function).__qualname__} object, whose call is"
            f" {owner}'s own work around yours: put {decorator} next to your 'async def', below the"
            " decorator that made this object"
        )
    elif not callable(function):
        message = (
            f"{decorator} decorates coroutine functions, and {function!r} can't be called; a Database"
            " is named to @atomic(db) alone: the others cover every one that is used in them"
        )
    elif inspect.isbuiltin(function):
        message = f"{decorator} can't decorate the builtin {name}: wrap it in an 'async def'"
    elif isinstance(view := getattr(function, "view_class", None), type):
        message = (
            f"{decorator} can't decorate {name}, which calls the methods of its class: put it on"
            f" those{_methods_of(view)}"
        )
    elif _is(inspect.iscoroutinefunction, function) or is_stream(function):
        return
    elif _is_function(function) and _is(inspect.iscoroutinefunction, inspect.unwrap(function)):
        message = (
            f"{decorator} was given what another decorator made of the coroutine function {name}, and"
            f" that is a plain function: put {decorator} below that one, next to the 'async def'"
        )
    elif _is_function(function):
        message = (
            f"{decorator} needs a coroutine function or an async generator function, and {name} is none: make it 'async def', or, if"
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


def refuse_uncallable(registrar: str, function: Any, given: int) -> None:
    """Raise unless ``function`` can be called with that many arguments, and say what to do."""
    if not callable(function):
        message = (
            f"{registrar} takes a function, sync or async, not {function!r}; arguments are given"
            f" along in a function of their own: {registrar}(lambda: send_mail(order_id))"
        )
        raise TypeError(message)
    if not _takes(function, given):
        name, signature = qualified_name(function), inspect.signature(function)
        short = name.rpartition(".")[2]
        how = "with the outcome alone" if given else "without arguments"
        shape = "lambda outcome" if given else "lambda"
        message = (
            f"{registrar} calls its function {how}, and {name}{signature} can't be called so: give"
            f" the arguments along, as in {registrar}({shape}: {short}(...))"
        )
        raise TypeError(message)


def _takes(function: Any, given: int) -> bool:
    """Whether it can be called so. ``inspect`` alone would take longer than a hook does."""
    code = getattr(function, "__code__", None)
    if code is None:
        try:
            inspect.signature(function).bind(*[None] * given)
        except TypeError:
            return False
        except ValueError:  # a builtin that does not tell
            return True
        return True
    given += getattr(function, "__self__", None) is not None
    least = code.co_argcount - len(function.__defaults__ or ())
    most = math.inf if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    needs_no_names = code.co_kwonlyargcount <= len(function.__kwdefaults__ or ())
    return bool(least <= given <= most and needs_no_names)


def is_stream(function: Any) -> bool:
    """Whether it is an async generator function, or an object that is called as one."""
    return _is(inspect.isasyncgenfunction, function)


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or (
        not _is_function(function) and kind(getattr(_class_of(function), "__call__", None))  # noqa: B004
    )


def _framework_of(function: Any) -> str | None:
    """Name the framework whose object this is: an application, a route, a task."""
    if _is_function(function):
        return None
    cls = _class_of(function)
    owner: Any = cls.__call__ if callable(function) else cls
    if not is_of_a_framework(str(getattr(owner, "__module__", None))):
        return None
    named = cls if is_of_a_framework(cls.__module__) else owner
    return str(named.__module__).partition(".")[0]


def _methods_of(cls: type[Any]) -> str:
    """Show the first of a class's own methods that could be decorated."""
    names = [
        name
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value))
    ]
    if not names:
        return ""
    shown = [*names[:_MOST_SHOWN], *(["..."] if len(names) > _MOST_SHOWN else [])]
    return f" ({', '.join(shown)})"


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
