"""Mistakes in decorating that are certain, told when the module is imported.

Two of them, and only where the decorator stands above a ``def`` (who calls
``transactional(function)`` knows what has got the function): the same said twice, and a
function that the decorator below has given to a framework already, so that the framework
calls it without its transaction. The second costs a look at the reference count; who holds
the function is searched only if somebody does, and outside the development mode for half a
second in all. Knows nothing of any framework but its name.
"""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import types
import weakref
from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import Any, cast

from txkit._core import development
from txkit.policy.callables import qualified_name
from txkit.policy.frameworks import is_of_a_framework
from txkit.policy.stacking import Applied, is_in_vain

log = logging.getLogger("txkit")

_CONTAINERS = (
    dict,
    list,
    tuple,
    set,
    frozenset,
    deque,
    types.CellType,
    types.MethodType,
    functools.partial,
)
_USERS_OWN = {
    "aiohttp.web_app.Application",
    "litestar.datastructures.state.State",
    "starlette.datastructures.State",
}
"""Where an application keeps what is its user's."""

_DEEPEST = 5
_MOST_IN_VAIN_S = 0.5
"""A search takes milliseconds: who keeps registries of his own is not made to wait for more."""

_fewest: dict[str, int] = {}
_searched_in_vain_s = 0.0


def remember(given: Any) -> None:
    """Let the development mode know that a function, and what it wraps, is decorated."""
    if development.IS_ON:
        development.remember(_below(given))


def refuse_mistakes(applied: Applied, given: Any, references: int) -> None:
    """Raise if this decorator has no effect where it stands.

    Args:
        applied: what is being put on it.
        given: what was given to the decorator.
        references: how many there were to it when it arrived there.
    """
    fewest = _fewest.setdefault(applied.decorator, references)
    if references < fewest:
        _fewest[applied.decorator] = references
    chain = list(_below(given))
    *wrappers, function = chain
    if not _stands_above(function):
        return
    _refuse_twice(applied, chain)
    if given is function:
        is_held = bool(references > fewest or weakref.getweakrefcount(function))
    else:  # a wrapper always holds what it wraps, and a search for each is for the development mode
        is_held = development.IS_ON and any(type(one) is types.FunctionType for one in wrappers)
    if is_held:
        _refuse_registered(applied, chain)


def _refuse_twice(applied: Applied, chain: list[Any]) -> None:
    """Look at what is next to it: a decorator of somebody else's in between has its own reasons."""
    for one in chain:
        below = getattr(one, "_self_applied", None)
        if not isinstance(below, Applied):
            if isinstance(one, (classmethod, staticmethod)):
                continue
            return
        if is_in_vain(applied, below):
            message = (
                f"{applied.decorator} stands above {below.decorator} on {qualified_name(one)}, and"
                " one of them has no effect: a unit is opened once. Keep one, with the options of both"
            )
            raise TypeError(message)


def _refuse_registered(applied: Applied, chain: list[Any]) -> None:
    """Raise if a framework has got the function already, so that it will call it undecorated."""
    global _searched_in_vain_s  # noqa: PLW0603 - a budget of the process
    if _searched_in_vain_s > _MOST_IN_VAIN_S and not development.IS_ON:
        return
    start_s = perf_counter()
    holder = _holder(chain)
    if holder is None:
        _searched_in_vain_s += perf_counter() - start_s
        if _searched_in_vain_s > _MOST_IN_VAIN_S and not development.IS_ON:
            log.info("who keeps decorated functions is not looked up any more: it took too long")
        return
    message = (
        f"{applied.decorator} stands above the decorator that gave {qualified_name(chain[-1])} to"
        f" {holder.partition('.')[0]} (its {holder}), which has got it without a transaction: put"
        f" {applied.decorator} below that one, next to the 'async def' (if it is meant so, call"
        f" {applied.decorator[1:]}(...) on the function in a line of its own)"
    )
    raise TypeError(message)


def _stands_above(function: Any) -> bool:
    """Whether who decorates runs ``@decorator`` above this function's ``def``."""
    code = getattr(function, "__code__", None)
    frame = _caller()
    if code is None or frame is None or not any(one is code for one in frame.f_code.co_consts):
        return False
    first: int = code.co_firstlineno  # the line of the topmost decorator
    if not first <= frame.f_lineno:
        return False
    body = next((line for *_, line in code.co_lines() if line and line > first), first + 1)
    return bool(frame.f_lineno < body)


def _caller() -> types.FrameType | None:
    """Find who decorates: the first frame that is not ours."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("txkit."):
        frame = frame.f_back
    return frame


def _below(function: Any) -> Iterator[Any]:
    """Give what was given, and what it wraps, down to the function of the ``def``."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        is_method = isinstance(function, (classmethod, staticmethod))
        function = function.__func__ if is_method else getattr(function, "__wrapped__", None)


def _holder(chain: list[Any]) -> str | None:
    """Name the framework's object that has got the function, directly or in containers.

    What wraps it, down from what was given to us, is no holder.
    """
    function = chain[-1]
    level: list[Any] = [function, *weakref.getweakrefs(function)]
    known: set[int] = {id(one) for one in (*level, *chain, chain)}
    for _ in range(_DEEPEST):
        mine = {id(level), id(known)}
        above: list[Any] = []
        names: set[str] = set()
        for one in gc.get_referrers(*level):
            if id(one) in known or id(one) in mine or isinstance(one, types.FrameType):
                continue
            known.add(id(one))
            name = _framework_name(one)
            if name is not None:
                names.add(name)
            elif _is_between(one, level):
                above.append(one)
        if names:
            return min(names)  # the same one each time
        level = above
        if not level:
            break
    return None


def _is_between(holder: Any, held: list[Any]) -> bool:
    """Whether it holds for somebody else.

    A module's names hold everything, and what is a key only is something that is known about it.
    """
    if isinstance(holder, dict):
        values = cast("dict[Any, Any]", holder).values()  # type: ignore[redundant-cast]  # pyright's
        return "__builtins__" not in holder and any(a is b for a in values for b in held)
    if isinstance(holder, _CONTAINERS):
        return True
    return _module_of(holder).startswith("pydantic.")


def _framework_name(holder: Any) -> str | None:
    is_function = isinstance(holder, types.FunctionType)
    qualname = holder.__qualname__ if is_function else type(holder).__qualname__
    name = f"{_module_of(holder)}.{qualname}"
    return name if is_of_a_framework(name) and name not in _USERS_OWN else None


def _module_of(holder: Any) -> str:
    """Name where a function was written, or an object's class."""
    if isinstance(holder, types.FunctionType):
        return str(holder.__globals__.get("__name__"))
    return str(type(holder).__module__)
