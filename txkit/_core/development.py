"""The development mode: what is only likely to be a mistake, told as a warning.

``TXKIT_DEVELOPMENT=1`` in the environment turns it on when txkit is imported. It looks at
the functions that open a unit: one after the other from a handler that has no decorator is
a transaction for each service, where the author most likely meant one. Off, nothing of it
is on any call's way. After the debug mode of asyncio.
"""

from __future__ import annotations

import inspect
import os
import warnings
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from txkit._core.turn import current_task_or_none
from txkit.policy.frameworks import is_of_a_framework
from txkit.policy.propagation import Propagation

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from types import CellType, CodeType, FrameType

    from txkit._core.scope import Scope
    from txkit.policy.definition import Definition

VARIABLE = "TXKIT_DEVELOPMENT"
IS_ON = os.environ.get(VARIABLE, "") not in {"", "0"}

_F = TypeVar("_F", bound="Callable[..., Any]")
_JOINS_WHERE_IT_CAN = {Propagation.REQUIRED, Propagation.NESTED}
_OF_COROUTINES = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_GENERATOR
_PLUMBING = {"aiosignal", "anyio", "asyncio", "contextlib", "pydantic"}
"""Who stands between a framework and a handler, and is neither."""

_TO_TELL_APART = "@new_context on the services that are to be apart says that they are meant to be"


class DevelopmentWarning(UserWarning):
    """Something looks like a mistake; told in the development mode only.

    The place that it names is the handler's. Nothing was stopped: where a filter makes an
    error of it, what had been committed before stays so, and the unit that was about to
    be opened is not begun.
    """

    __module__ = "txkit"


@dataclass(slots=True)
class _Handler:
    """The handler that a task runs, and the first function in it whose unit returned.

    None once it has been told.
    """

    frame: FrameType
    first: str | None


_handlers: WeakKeyDictionary[asyncio.Task[Any], _Handler] = WeakKeyDictionary()
_decorated: WeakKeyDictionary[CodeType, WeakSet[FunctionType]] = WeakKeyDictionary()


def watching(run_unit: _F) -> _F:
    """Give what runs a unit, with a look at who opens it; itself, unless the mode is on."""
    if not IS_ON:
        return run_unit

    async def watched(root: Scope, definition: Definition, *args: Any, **kwargs: Any) -> Any:
        task, handler = current_task_or_none(), None
        joins = root.atomic or definition.propagation in _JOINS_WHERE_IT_CAN
        only_reads = definition.characteristics.read_only  # of which nothing stays
        if task is not None and joins and not only_reads and not _is_a_handlers(*args[1:]):
            handler = _look(task, root.name)
        result = await run_unit(root, definition, *args, **kwargs)
        if task is not None and handler is not None:
            _keep(task, handler, root.name)
        return result

    return watched  # type: ignore[return-value]


def _is_a_handlers(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is given something of a framework's, as a handler is by a middleware."""
    return any(is_of_a_framework(str(type(one).__module__)) for one in (*args, *kwargs.values()))


def remember(functions: Iterable[Any]) -> None:
    """Keep in mind that a function, and what it wraps, has been decorated."""
    for function in functions:
        if isinstance(function, FunctionType):
            _decorated.setdefault(function.__code__, WeakSet()).add(function)


def _is_decorated(frame: FrameType) -> bool:
    """Whether it runs a function that has been decorated, and not another of the same code.

    Functions that are made by a function share their code and differ in what they enclose.
    """
    functions = _decorated.get(frame.f_code, ())
    return any(
        all(
            frame.f_locals.get(name) is _enclosed(cell)
            for name, cell in zip(frame.f_code.co_freevars, one.__closure__ or (), strict=True)
        )
        for one in functions
    )


def _enclosed(cell: CellType) -> object:
    """Give what a cell holds; None while it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _look(task: asyncio.Task[Any], name: str) -> FrameType | None:
    """Warn if the handler that we are in should have opened this unit; give the handler."""
    handler = _handler_in(task)
    if handler is None:
        return None
    known = _handlers.get(task)
    if _is_decorated(handler):
        _warn(
            handler,
            f"{_named(handler)} is decorated, but its framework calls the function below the"
            f" decorator, and {name} became a unit by itself: give the framework what the decorator"
            " returns (the decorator stands below the route's, next to the 'async def')",
        )
    elif known is not None and known.frame is handler and known.first not in {name, None}:
        first, known.first = known.first, None  # it is told once
        _warn(
            handler,
            f"{_named(handler)}, which a framework called, has no decorator, and {first} and {name},"
            " which it calls one after the other, are a unit each: what the first did stays,"
            " whatever becomes of the second. Put @transactional next to its 'async def', below the"
            f" framework's decorator; {_TO_TELL_APART}",
        )
    return handler


def _keep(task: asyncio.Task[Any], handler: FrameType, name: str) -> None:
    """Keep in mind that a unit of this handler is committed (one that failed is no half of another)."""
    known = _handlers.get(task)
    if known is None:
        task.add_done_callback(_forget)  # its locals may refer to the task
    if known is None or known.frame is not handler:
        _handlers[task] = _Handler(handler, name)


def _forget(task: asyncio.Task[Any]) -> None:
    _handlers.pop(task, None)


def _handler_in(task: asyncio.Task[Any]) -> FrameType | None:
    """Find the function that a known framework called in this task, unless it is decorated."""
    handler: FrameType | None = None
    for frame in _frames_of(task):
        if is_of_a_framework(_module_of(frame)):
            break
        if _is_a_users(frame):
            handler = frame
    else:  # a compiled framework has no frames, but its coroutine tells whose it is
        if not is_of_a_framework(str(getattr(task.get_coro(), "__module__", None))):
            return None
    return handler if handler is not None and not _is_ours(handler) else None


def _frames_of(task: asyncio.Task[Any]) -> list[FrameType]:
    """Collect the frames of the running task, inside out, from the coroutine that opens a unit.

    They end at the task's own coroutine. One that is compiled has no frame: then they end at the
    first that is no coroutine's, which is the event loop's. Never further: below the loop is who
    runs it, a command of click for instance.
    """
    coroutine = task.get_coro()
    root = coroutine.cr_frame if inspect.iscoroutine(coroutine) else None
    frames: list[FrameType] = []
    frame = inspect.currentframe()
    while frame is not None and not _is_of_a_coroutine(frame):
        frame = frame.f_back
    while frame is not None and (root is not None or _is_of_a_coroutine(frame)):
        frames.append(frame)
        frame = None if frame is root else frame.f_back
    return frames


def _is_a_users(frame: FrameType) -> bool:
    """Whether it can be a handler's. A lifespan is a generator; what dishka makes has no module."""
    if frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR or "__name__" not in frame.f_globals:
        return False
    return _module_of(frame).partition(".")[0] not in _PLUMBING


def _is_of_a_coroutine(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & _OF_COROUTINES)


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_ours(frame: FrameType) -> bool:
    return _module_of(frame).startswith("txkit.")


def _named(frame: FrameType) -> str:
    return f"{_module_of(frame)}.{frame.f_code.co_qualname}"


def _warn(handler: FrameType, message: str) -> None:
    code = handler.f_code
    warnings.warn_explicit(
        f"{message} ({VARIABLE}=1)",
        DevelopmentWarning,
        filename=code.co_filename,
        lineno=code.co_firstlineno,
        module=_module_of(handler),
        registry=handler.f_globals.setdefault("__warningregistry__", {}),
    )
