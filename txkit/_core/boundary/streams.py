"""Decorated async generator functions: boundaries that stay open between the steps.

The context is the body's alone: each step goes in and comes out again, so that the
consumer stands where it stood, in whatever task it is. Exhausted, the boundary commits;
an exception, or leaving early, rolls it back. What the body stands in when it yields
(blocks of its own) is there again at the next step.

The body is kept from the event loop's care for generators, which would close it at the
same time as the generator around it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from txkit._core.boundary.entered import (
    Entered,
    Opened,
    doom_left,
    enter_atomic,
    enter_unit,
    is_in_other_hands,
    leave_early,
)
from txkit._core.context import State
from txkit._core.notes import attach
from txkit._core.place import Place, current, install
from txkit._core.scope import Scope
from txkit._core.turn import NOBODY
from txkit._core.users import end_turn, take_turn
from txkit.policy.outcome import find_injected

if TYPE_CHECKING:
    from txkit.database import Database
    from txkit.policy.current_transaction import Mode
    from txkit.policy.definition import Definition

Body: TypeAlias = AsyncGenerator[Any, Any]
Function: TypeAlias = Callable[..., Body]

_EXHAUSTED = object()


def unit_stream(function: Function, definition: Definition, name: str) -> Function:
    """Give the entry of ``@transactional`` and ``@new_context`` on an async generator function."""

    async def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entered:
        return await enter_unit(definition, name, find_injected(args, kwargs))

    return _stream(function, enter)


def atomic_stream(
    function: Function, databases: tuple[Database, ...], mode: Mode, name: str
) -> Function:
    """Give the entry of ``@atomic`` on an async generator function."""

    async def enter(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entered:
        scope = Scope(name, atomic=True, only=databases)
        return await enter_atomic(scope, mode, find_injected(args, kwargs))

    return _stream(function, enter)


def _stream(
    function: Function,
    enter: Callable[[tuple[Any, ...], dict[str, Any]], Awaitable[Entered]],
) -> Function:
    async def entry(*args: Any, **kwargs: Any) -> Body:
        body = function(*args, **kwargs)  # before anything is entered: it may be called wrongly
        stream = Stream(await enter(args, kwargs), body)
        item = await stream.step(_first_step(stream.body))
        while item is not _EXHAUSTED:
            try:
                sent = yield item
            except GeneratorExit as leaving:
                await stream.leave_early(leaving)  # noqa: ASYNC120 - a cancellation may leave
                raise
            except BaseException as error:  # noqa: BLE001 - the body's to judge
                step = stream.body.athrow(error)
            else:
                step = stream.body.asend(sent)
            item = await stream.step(step)

    return entry


class Stream:
    """The body, the place that it stands in, and how what it entered is left."""

    def __init__(self, entered: Entered, body: Body) -> None:
        self.body = body
        self._entry = entered.entry
        self._context = entered.context
        self._asked = entered.asked
        self._root = Place(entered.context, entered.caller, None)
        self._place: Place | None = self._root
        self._is_disowned = False

    async def step(self, step: Awaitable[Any]) -> Any:
        """Let the body go on to its next yield; end everything where there is none."""
        limit = self._entry.limit
        with self._inside():
            try:
                return await (step if limit is None else limit.run(step))
            except StopAsyncIteration:
                pass
            except BaseException as error:
                try:
                    if not isinstance(error, GeneratorExit):  # it may have swallowed a time-out
                        await self._close_body(error)
                finally:
                    await self._leave(error)
                raise
            await self._end()
            return _EXHAUSTED

    async def leave_early(self, leaving: BaseException) -> None:
        """Close the body where its consumer left it, and roll back."""
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - nothing can be awaited
            await self._leave(leaving)
            return
        is_foreign = is_in_other_hands(self._entry, self._context)
        if is_foreign:
            self._disown()
        with self._inside():
            try:
                await self.body.aclose()
            except BaseException as error:
                await self._leave(error)
                raise
            if not is_foreign:
                await leave_early(self._entry, self._root)

    async def _leave(self, error: BaseException | None) -> None:
        if isinstance(self._entry, Opened) or self._context.state is State.OPEN:
            await self._entry.leave(self._root, error)

    async def _end(self) -> None:
        """End well, unless the time of what was joined is over."""
        try:
            if self._entry.limit is not None:
                self._entry.limit.check()
        except BaseException as error:
            await self._leave(error)
            raise
        await self._leave(None)

    async def _close_body(self, error: BaseException) -> None:
        try:
            await self.body.aclose()
        except Exception as failure:  # noqa: BLE001 - the first error leaves
            attach(error, "closing the generator failed too", failure)

    def _disown(self) -> None:
        """Let what is closed by another task than uses the context touch nothing in it."""
        doom_left(self._entry, self._context)
        self._is_disowned = True
        place = self._place
        while place is not None:
            place.user = NOBODY
            place = place.before

    @contextmanager
    def _inside(self) -> Generator[None]:
        """Stand where the body stands; afterwards, where the consumer does."""
        context, outside = self._context, current()
        is_own = isinstance(self._entry, Opened)
        self._root.before = None if self._is_disowned else outside
        if is_own:
            self._root.user = take_turn(context)
        if self._asked is not None:
            context.asked.append(self._asked)
        install(self._place)
        try:
            yield
        finally:
            self._place = current()
            install(outside)
            self._root.before = None
            if self._asked is not None:
                context.asked.remove(self._asked)
            if is_own:
                end_turn(context)


def _first_step(body: Body) -> Awaitable[Any]:
    """Begin the body, unseen by the hooks that the event loop has for generators."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)
