"""Let work that must not be torn apart complete, however often it is cancelled.

The work runs in a task of its own; the caller waits for it to the end and
hands on its own cancellation afterwards. Nobody is cancelled twice, nothing
spins, and there is a bound: past it the work's connections are discarded. The
event loop does not list it either: ``asyncio.run`` cancels all tasks that it finds
when its main one is over, but waits for the callers that wait for theirs.

Under anyio, whose cancellation comes again at every await, a shielded scope
holds it off, but only once a cancellation has come: the good path pays nothing.
This module must not know sessions, contexts or databases.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

T = TypeVar("T")

_CALLERS = WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any]]()
"""On whose behalf each finishing task works."""


async def complete(
    work: Coroutine[Any, Any, T],
    *,
    timeout_s: float,
    discard: Callable[[], None],
    deadline: float | None = None,
    hurried: bool = False,
    revocable: bool = False,
) -> T:
    """Run ``work`` to its end and return its result.

    ``deadline``, on the loop's clock, is when the work is broken off at the latest;
    ``hurried`` says that the caller was cancelled before it came here; ``revocable``,
    that the work is not to begin if he is cancelled in the one turn of the loop before it does.

    Cancellation: the work goes on for up to ``timeout_s`` seconds, then
    ``discard`` is called to break it off; ``CancelledError`` leaves afterwards,
    with a note of what failed meanwhile.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()  # what asyncio.shield does, at half of its price
    if revocable:
        work = _begin_if_wanted(work, ended)
    task = loop.create_task(work, name="txkit: finishing")
    asyncio.tasks._unregister_task(task)  # noqa: SLF001 - an ending loop cancels all it knows
    caller = asyncio.current_task()
    if caller is not None:
        _CALLERS[task] = on_behalf_of(caller)
    task.add_done_callback(partial(_tell, ended))
    if deadline is not None:
        alarm = loop.call_at(deadline, _break_off, task, discard)
        task.add_done_callback(lambda _: alarm.cancel())
    try:
        if hurried:
            await _wait_out(task, timeout_s, discard)
        else:
            await ended
    except asyncio.CancelledError as cancelled:
        await _wait_out(task, timeout_s, discard)
        if task.cancelled():
            cancelled.add_note("txkit: finishing took too long and was broken off")
        elif (error := task.exception()) is not None and not isinstance(error, _RevokedError):
            cancelled.add_note(
                f"txkit: finishing failed meanwhile: {type(error).__name__}: {error}"
            )
        raise
    return task.result()


def on_behalf_of(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Give the task that ``task`` finishes something for, else itself."""
    return _CALLERS.get(task, task)


def cancellations() -> int:
    """Give how often the running task was cancelled, by those who have not taken it back."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def cancel_later(cancelled: asyncio.CancelledError | None = None) -> None:
    """Let a cancellation come once more, at the next await; nobody counts it twice.

    With its message, by which an anyio scope knows its own. Where that is not known, such a
    scope lets it come again by itself.
    """
    task = asyncio.current_task()
    if task is not None and (cancelled is not None or not _is_in_cancelled_scope()):
        task.uncancel()
        task.cancel(*(() if cancelled is None else cancelled.args))


class _RevokedError(Exception):
    """The work has not begun."""


async def _begin_if_wanted(work: Coroutine[Any, Any, T], ended: asyncio.Future[None]) -> T:
    if ended.cancelled():  # as the caller was who waits for it
        work.close()
        raise _RevokedError
    return await work


def _tell(ended: asyncio.Future[None], task: asyncio.Task[Any]) -> None:
    _CALLERS.pop(task, None)
    if not ended.done():
        ended.set_result(None)


async def _wait_out(task: asyncio.Task[Any], timeout_s: float, discard: Callable[[], None]) -> None:
    """Wait for the task through any number of further cancellations."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    with _anyio_shield():
        while not task.done() and (left := deadline - loop.time()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task}, timeout=left)
        if not task.done():
            _break_off(task, discard)
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})


def _break_off(task: asyncio.Task[Any], discard: Callable[[], None]) -> None:
    discard()
    task.cancel()


def _is_in_cancelled_scope() -> bool:
    anyio = sys.modules.get("anyio")
    return anyio is not None and anyio.current_effective_deadline() == -math.inf


def _anyio_shield() -> AbstractContextManager[object]:
    anyio = sys.modules.get("anyio")
    return contextlib.nullcontext() if anyio is None else anyio.CancelScope(shield=True)
