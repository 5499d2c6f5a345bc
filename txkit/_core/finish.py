"""Let work that must not be torn apart complete, however often it is cancelled.

The work runs in a task of its own; the caller waits for it to the end and
hands on its own cancellation afterwards. Nobody is cancelled twice, nothing
spins, and there is a bound: past it the work's connections are discarded.

Under anyio, whose cancellation comes again at every await, a shielded scope
holds it off, but only once a cancellation has come: the good path pays nothing.
This module must not know sessions, contexts or databases.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

T = TypeVar("T")

_CALLERS: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}
"""On whose behalf each finishing task works."""


async def complete(
    work: Coroutine[Any, Any, T],
    *,
    timeout_s: float,
    discard: Callable[[], None],
    deadline: float | None = None,
    hurried: bool = False,
) -> T:
    """Run ``work`` to its end and return its result.

    ``deadline``, on the loop's clock, is when the work is broken off at the latest;
    ``hurried`` says that the caller was cancelled before it came here.

    Cancellation: the work goes on for up to ``timeout_s`` seconds, then
    ``discard`` is called to break it off; ``CancelledError`` leaves afterwards,
    with a note of what failed meanwhile.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="txkit: finishing")
    caller = asyncio.current_task()
    if caller is not None:
        _CALLERS[task] = on_behalf_of(caller)
    ended = loop.create_future()  # what asyncio.shield does, at half of its price
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
        elif (error := task.exception()) is not None:
            cancelled.add_note(
                f"txkit: finishing failed meanwhile: {type(error).__name__}: {error}"
            )
        raise
    return task.result()


def on_behalf_of(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Give the task that ``task`` finishes something for, else itself."""
    return _CALLERS.get(task, task)


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


def _anyio_shield() -> AbstractContextManager[object]:
    anyio = sys.modules.get("anyio")
    return contextlib.nullcontext() if anyio is None else anyio.CancelScope(shield=True)
