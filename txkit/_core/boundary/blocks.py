"""The same boundaries as ``async with`` blocks.

The object that is entered keeps nothing: what an entry needs at its exit lies
in the current place, which remembers the one before it, so that one object can
be entered again, inside itself and by many tasks at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeAlias

from txkit._core.boundary.atomic import (
    enter_block,
    enter_nested,
    leave_normally,
    leave_with_error,
)
from txkit._core.boundary.enlist import give
from txkit._core.boundary.entries import decided
from txkit._core.boundary.joining import joined_failed, refuse_incompatible
from txkit._core.boundary.nested import leave_nested, leave_nested_with_error
from txkit._core.boundary.unit import end_context, end_normally, end_with_error, new_context
from txkit._core.limit import Limit
from txkit._core.place import Place, current, go_back, install, running_context, standing
from txkit._core.scope import Scope
from txkit._core.users import use
from txkit.errors import ContextClosedError
from txkit.policy.characteristics import AUTOCOMMIT, PLAIN
from txkit.policy.definition import Definition
from txkit.policy.propagation import Decision

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit._core.context import Context
    from txkit.database import Database
    from txkit.policy.characteristics import Characteristics
    from txkit.policy.current_transaction import Mode

_PLAIN = Definition()


class BlockPlace(Place):
    """A place inside an ``async with`` block: whose, how it is left, where to go back to."""

    __slots__ = ("asked", "entry", "frame", "owner")

    def __init__(
        self, context: Context, caller: str | None, owner: Block, entry: Entry, frame: FrameType
    ) -> None:
        super().__init__(context, caller, current())
        self.owner = owner
        self.entry = entry
        self.frame = id(frame)
        self.asked: tuple[str, Characteristics] | None = None


class Opened:
    """An entry that opened its context."""

    def __init__(self, definition: Definition, limit: Limit | None = None) -> None:
        self._definition = definition
        self.limit = limit

    async def leave(self, place: BlockPlace, error: BaseException | None) -> None:
        """End the context."""
        try:
            if error is None:
                await end_normally(place.context, self._definition, None)
            else:
                await end_with_error(place.context, self._definition, error)
        finally:
            end_context(place)


class Joined:
    """An entry that joined the context that was there."""

    def __init__(
        self, definition: Definition, context: Context, name: str, limit: Limit | None
    ) -> None:
        self._definition = definition
        self._name = name
        self._since = context.clock
        self.limit = limit

    async def leave(self, place: BlockPlace, error: BaseException | None) -> None:
        """Mark the unit if the block failed."""
        context = place.context
        go_back(place)
        if error is not None:
            name, since, limit = self._name, self._since, self.limit
            joined_failed(context, self._definition, name, error, since=since, limit=limit)


class Covered:
    """An atomic block inside a context, or a ``nested`` one."""

    def __init__(
        self, scope: Scope, definition: Definition | None = None, limit: Limit | None = None
    ) -> None:
        self._scope = scope
        self._definition = definition
        self.limit = limit

    async def leave(self, place: BlockPlace, error: BaseException | None) -> None:
        """Commit the block or roll it back."""
        context, scope, definition = place.context, self._scope, self._definition
        try:
            if definition is None:
                if error is None:
                    await leave_normally(context, scope)
                else:
                    await leave_with_error(context, scope, error)
            elif error is None:
                await leave_nested(context, scope, definition)
            else:
                await leave_nested_with_error(context, scope, definition, error, self.limit)
        finally:
            go_back(place)


Entry: TypeAlias = Opened | Joined | Covered


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
        name = definition.name or _block_name(kind, frame)
        decision, context = decided(definition, name)
        entry: Entry
        if context is not None and decision in {Decision.JOIN, Decision.SAVEPOINT}:
            use(context, name)
            await refuse_incompatible(context, definition.characteristics, name)
            limit = None if definition.timeout_s is None else Limit(name, definition.timeout_s)
            if decision is Decision.JOIN:
                entry = Joined(definition, context, name, limit)
                place = BlockPlace(context, name, self, entry, frame)
            else:
                scope = Scope(name, atomic=True, commits=False)
                await enter_nested(context, scope)
                entry = Covered(scope, definition, limit)
                place = BlockPlace(context, None, self, entry, frame)
            place.asked = (name, definition.characteristics)
            context.asked.append(place.asked)
            self._stand(place)
        else:
            asked = AUTOCOMMIT if decision is Decision.AUTOCOMMIT else definition.characteristics
            context = new_context(Scope(name, atomic=False), definition, asked)
            entry = Opened(definition, context.limit)
            self._stand(BlockPlace(context, None, self, entry, frame))
        if entry.limit is not None:
            await entry.limit.start()

    async def enter_atomic(
        self, databases: tuple[Database, ...], mode: Mode
    ) -> AsyncSession | None:
        """Enter ``async with atomic(...)``; give the session if there is one Database."""
        frame = _users_frame()
        scope = Scope(_block_name("atomic", frame), atomic=True, only=databases)
        context = running_context()
        if context is None or context.autocommit:
            context = new_context(scope, _PLAIN, PLAIN)
            self._stand(BlockPlace(context, None, self, Opened(_PLAIN), frame))
        else:
            use(context, scope.name)
            await enter_block(context, scope, mode)
            self._stand(BlockPlace(context, None, self, Covered(scope), frame))
        if len(databases) != 1:
            return None
        try:
            return (await give(context, databases[0])).session
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
        last = standing()
        here = self._open.get(id(_users_frame()))
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
            await place.entry.leave(place, leaving)
        finally:
            self._forget(place)
            if place.asked in place.context.asked:
                place.context.asked.remove(place.asked)
        if leaving is not None and leaving is not error:
            raise leaving from error

    def _stand(self, place: BlockPlace) -> None:
        self._open.setdefault(place.frame, []).append(place)
        install(place)

    def _forget(self, place: BlockPlace) -> None:
        places = self._open[place.frame]
        places.remove(place)
        if not places:
            del self._open[place.frame]


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
