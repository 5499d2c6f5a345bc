"""The same boundaries as ``async with`` blocks.

The object that is entered keeps nothing: what an entry needs at its exit lies
in the current place, which remembers the one before it, so that one object can
be entered again, inside itself and by many tasks at once.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING

from txkit._core.boundary.enlist import give
from txkit._core.boundary.entered import (
    Entered,
    doom_left,
    enter_atomic,
    enter_unit,
    is_in_other_hands,
    leave_early,
)
from txkit._core.place import Place, current, go_back, install, standing
from txkit._core.scope import Scope
from txkit._core.turn import current_task_or_none
from txkit.errors import ContextClosedError

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit.database import Database
    from txkit.policy.current_transaction import Mode
    from txkit.policy.definition import Definition


class BlockPlace(Place):
    """A place inside an ``async with`` block: whose, how it is left, where to go back to."""

    __slots__ = ("asked", "entry", "frame", "owner")

    def __init__(self, entered: Entered, owner: Block, frame: FrameType) -> None:
        super().__init__(entered.context, entered.caller, current())
        self.owner = owner
        self.entry = entered.entry
        self.asked = entered.asked
        self.frame = id(frame)


class Block:
    """What can be entered with ``async with``, many times at once.

    An entry is found again through the frame that it was made in: a coroutine that
    is closed from outside runs its exits wherever its closer stands. Where another
    frame exits (an AsyncExitStack that was handed on), the current place tells.
    """

    def __init__(self) -> None:
        self._open: dict[int, list[BlockPlace]] = {}

    async def enter_unit(self, definition: Definition, kind: str) -> None:
        """Enter ``async with transactional(...)`` or ``new_context(...)``."""
        frame = _users_frame()
        entered = await enter_unit(definition, definition.name or _block_name(kind, frame))
        self._stand(entered, frame)
        if entered.asked is not None:
            entered.context.asked.append(entered.asked)
        if entered.entry.limit is not None:
            await entered.entry.limit.start()

    async def enter_atomic(
        self, databases: tuple[Database, ...], mode: Mode
    ) -> AsyncSession | None:
        """Enter ``async with atomic(...)``; give the session if there is one Database."""
        frame = _users_frame()
        scope = Scope(_block_name("atomic", frame), atomic=True, only=databases)
        entered = await enter_atomic(scope, mode)
        self._stand(entered, frame)
        if len(databases) != 1:
            return None
        try:
            return (await give(entered.context, databases[0])).session
        except BaseException as error:  # __aexit__ won't be called
            await self.leave(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the block as the decorated function would end."""
        await self.leave(error)

    async def leave(self, error: BaseException | None) -> None:
        """Leave the block that was entered last, here."""
        last, frame = standing(), _users_frame()
        here = self._open.get(id(frame))
        place = here[-1] if here else last
        is_sibling = isinstance(last, BlockPlace) and here and last.frame == here[-1].frame
        if (
            not isinstance(place, BlockPlace)
            or place.owner is not self
            or (is_sibling and last is not place)
        ):
            name = "nobody" if place is None else place.context.name
            what = "an async with block that is left in another order or by another task"
            raise ContextClosedError(what, name)
        leaving = error
        try:
            if place.entry.limit is not None:
                leaving = await place.entry.limit.stop(error)
            if isinstance(leaving, GeneratorExit) and _may_await(frame):
                await self._leave_early(place)
            else:
                await place.entry.leave(place, leaving)
        finally:
            self._forget(place)
            if place.asked in place.context.asked:
                place.context.asked.remove(place.asked)
        if leaving is not None and leaving is not error:
            raise leaving from error

    async def _leave_early(self, place: BlockPlace) -> None:
        """Leave a block of a generator that its consumer gave up: it is being closed."""
        entry, context = place.entry, place.context
        if is_in_other_hands(entry, context):
            doom_left(entry, context)
            go_back(place)
        else:
            await leave_early(entry, place)

    def _stand(self, entered: Entered, frame: FrameType) -> None:
        place = BlockPlace(entered, self, frame)
        self._open.setdefault(place.frame, []).append(place)
        install(place)

    def _forget(self, place: BlockPlace) -> None:
        places = self._open[place.frame]
        places.remove(place)
        if not places:
            del self._open[place.frame]


def _may_await(frame: FrameType) -> bool:
    """Whether GeneratorExit came to an async generator, whose ``aclose()`` is awaited."""
    is_stream = bool(frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR)
    return is_stream and current_task_or_none() is not None


def _users_frame() -> FrameType:
    """Give the frame that the block stands in, which lives as long as the block.

    Three calls up, or beyond contextlib, whose AsyncExitStack enters in one frame of
    its own and exits in another.
    """
    frame = sys._getframe(3)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    while frame.f_globals.get("__name__") == "contextlib" and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _block_name(kind: str, frame: FrameType) -> str:
    return f"{kind} block in {frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
