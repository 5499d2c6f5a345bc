"""Which tasks wait for a task: whoever holds something and waits for us can't let go of it.

Followed from the awaited task upwards, through the callbacks of what it completes:
``await task``, ``gather``, ``TaskGroup``, ``wait``, ``wait_for``, ``shield``, anyio's
task groups. A callback may hold more than it completes, so it is looked into with
restraint: when in doubt nobody waits. A task counts only where it says itself that it
is suspended on what was followed.

Must not know sessions, contexts or databases.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    AnyFuture: TypeAlias = asyncio.Future[Any]
    AnyTask: TypeAlias = asyncio.Task[Any]

_MOST = 10_000
"""Futures to look at before the rest is left in doubt."""

# What many may set off, and what holds futures of many: who waits on one waits for anybody.
_SHARED = (
    asyncio.AbstractEventLoop,
    asyncio.Condition,
    asyncio.Event,
    asyncio.Lock,
    asyncio.Queue,
    asyncio.Semaphore,
    ModuleType,
    type,
)


def suspended_on(targets: Iterable[AnyTask]) -> set[AnyTask]:
    """Give these tasks, and all that can't go on before one of them has ended.

    Where a task waits for several, it is enough that one of them is meant: it needs all.
    """
    tasks = set(targets)
    seen: set[AnyFuture] = set(tasks)
    left: deque[AnyFuture] = deque(tasks)
    while left and len(seen) < _MOST:
        ending = left.popleft()
        for future in _completed_by(ending):
            if future in seen or future.done():
                continue
            if isinstance(future, asyncio.Task):
                if _awaited_by(future) is not ending:
                    continue
                tasks.add(future)
            seen.add(future)
            left.append(future)
    return tasks


def is_suspended(task: AnyTask) -> bool:
    """Whether a task waits for something that is still to come."""
    future = _awaited_by(task)
    return future is not None and not future.done()


def wake_cancelled(task: AnyTask) -> bool:
    """Raise a ``CancelledError`` where a task waits, which nobody has asked for: say if it could."""
    future = _awaited_by(task)
    return future is not None and future.cancel()


def _awaited_by(task: AnyTask) -> AnyFuture | None:
    """Give what a task is suspended on."""
    future: AnyFuture | None = getattr(task, "_fut_waiter", None)
    return future


def _completed_by(future: AnyFuture) -> Iterator[AnyFuture]:
    callbacks: list[tuple[Any, Any]] | None = getattr(future, "_callbacks", None)
    for callback, _ in callbacks or ():
        yield from _held_by(callback)


def _held_by(callback: Any) -> Iterator[AnyFuture]:
    """Give the futures that a callback shows to hold: its own, its arguments', its closure's."""
    while isinstance(callback, partial):
        for value in (*callback.args, *callback.keywords.values()):
            yield from _in(value)
        callback = callback.func
    yield from _in(getattr(callback, "__self__", None))
    function = getattr(callback, "__func__", callback)
    if not isinstance(function, FunctionType) or function.__closure__ is None:
        return
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    if "return_when" in cells and (
        _content(cells["return_when"]) != asyncio.ALL_COMPLETED
        or _content(cells["timeout_handle"]) is not None
    ):
        return  # asyncio.wait(), which another one may end, or a timer
    for cell in cells.values():
        yield from _in(_content(cell))


def _in(value: Any) -> Iterator[AnyFuture]:
    """Give a future, or those that an object has as attributes; of a task nothing but itself."""
    if isinstance(value, asyncio.Future):
        yield value
    elif not isinstance(value, _SHARED):
        for held in list(getattr(value, "__dict__", {}).values()):
            if isinstance(held, asyncio.Future):
                yield held


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet, or deleted
        return None
