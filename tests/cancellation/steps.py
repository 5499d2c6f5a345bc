"""Count the suspensions of a unit and of every task made for it; cancel at one of them.

The event loop's task factory wraps each coroutine of a run in an awaitable that
sees what it yields to the loop. At the chosen point the unit's own task is
cancelled from the loop, so that it is really suspended then. Which tasks belong
to a run says a ContextVar: whatever the unit starts inherits it.

Must not know what a unit does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

RUNNING: ContextVar[Run | None] = ContextVar("running", default=None)


class Run:
    """One run of a unit, to be cancelled at its suspension number ``point`` (0: never).

    ``path`` says what is going on, from the outside in. ``commits`` are the COMMITs that
    were sent. What held at the moment of the cancellation is kept under ``*_then``.
    """

    def __init__(self, point: int) -> None:
        self.point = point
        self.again = False
        self.suspensions = self.wakes = self.cancels = self.commits = 0
        self.path: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.unit: asyncio.Task[Any] | None = None
        self.cancel: Callable[[], object] | None = None
        self.path_then: tuple[str, ...] | None = None
        self.commits_then = 0

    @property
    def was_struck(self) -> bool:
        return self.path_then is not None

    @contextlib.contextmanager
    def doing(self, *what: str) -> Iterator[None]:
        self.path.extend(what)
        try:
            yield
        finally:
            for one in what:
                self.leave(one)

    def leave(self, what: str) -> None:
        for place in range(len(self.path) - 1, -1, -1):
            if self.path[place] == what:
                del self.path[place]
                break

    def suspended(self) -> None:
        self.suspensions += 1
        if self.suspensions == self.point or (self.was_struck and self.again and self._may_again()):
            asyncio.get_running_loop().call_soon(self._strike)

    def _may_again(self) -> bool:
        """Not for the unit while it waits for others: it would suspend, and so be hit, for ever."""
        others = any(not one.done() for one in self.tasks if one is not self.unit)
        return asyncio.current_task() is not self.unit or not others

    def _strike(self) -> None:
        assert self.unit is not None
        assert self.cancel is not None
        if not self.unit.done():
            self.cancel()

    def is_cancelled(self) -> None:
        """Note the moment: some ways to cancel need a turn of the loop."""
        if self.path_then is None:
            self.path_then = tuple(self.path)
            self.commits_then = self.commits
        self.cancels += 1


class _Task(asyncio.Task[Any]):
    """A task that tells its run when it is cancelled, if it is the unit's own."""

    run: Run | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        if self.run is not None and self.run.unit is self and not self.done():
            self.run.is_cancelled()
        return super().cancel(msg)


class _Steps:
    """Drive a coroutine, and count."""

    def __init__(self, run: Run, work: Coroutine[Any, Any, Any]) -> None:
        self._run = run
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._work.send, None)
        while True:
            self._run.wakes += 1
            try:
                given = step()
            except StopIteration as end:
                return end.value
            self._run.suspended()
            try:
                value = yield given
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the work is to judge
                step = partial(self._work.throw, error)
            else:
                step = partial(self._work.send, value)


async def _counted(run: Run, work: Coroutine[Any, Any, Any]) -> Any:
    return await _Steps(run, work)


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Any, *, eager: bool, **options: Any
) -> asyncio.Task[Any]:
    context = options.get("context")
    run = RUNNING.get() if context is None else context.get(RUNNING)
    if run is not None:
        work = _counted(run, work)
    if eager:
        options.setdefault("eager_start", True)
    task = _Task(work, loop=loop, **options)
    if run is not None:
        task.run = run
        run.tasks.append(task)
    return task


@contextlib.contextmanager
def counting(*, eager: bool) -> Iterator[None]:
    """Let the running loop count; ``eager`` starts tasks at once (Python 3.12 and newer)."""
    assert not eager or sys.version_info >= (3, 12)
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(partial(_make_task, eager=eager))
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def turns() -> None:
    """Suspend until ways to cancel that need a turn of the loop have had it."""
    for _ in range(3):
        await asyncio.sleep(0)


def start(run: Run, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a unit as the task that the run cancels."""
    token = RUNNING.set(run)
    try:
        run.unit = asyncio.get_running_loop().create_task(work, name="the unit")
    finally:
        RUNNING.reset(token)
    return run.unit
