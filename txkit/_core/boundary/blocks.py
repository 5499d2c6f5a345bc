"""The same boundaries as ``async with`` blocks.

The object that is entered keeps nothing: what an entry needs at its exit lies
in the current place, which remembers the one before it, so that one object can
be entered again, inside itself and by many tasks at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from txkit._core.boundary.atomic import enter_block, leave_normally, leave_with_error
from txkit._core.boundary.enlist import enlist
from txkit._core.boundary.joining import joined_failed
from txkit._core.boundary.unit import end_context, end_normally, end_with_error, new_context
from txkit._core.context import Place, Scope, current, install, running_context
from txkit.errors import ContextClosedError, TransactionRequiredError
from txkit.policy.definition import Definition
from txkit.policy.propagation import Decision, decide

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit._core.context import Context
    from txkit.database import Database
    from txkit.policy.current_transaction import Mode

_PLAIN = Definition()


class Opened:
    """An entry that opened its context."""

    def __init__(self, context: Context, definition: Definition) -> None:
        self._context = context
        self._definition = definition

    async def leave(self, error: BaseException | None, before: Place | None) -> None:
        """End the context."""
        try:
            if error is None:
                await end_normally(self._context, self._definition, None)
            else:
                await end_with_error(self._context, self._definition, error)
        finally:
            end_context(self._context, before)


class Joined:
    """An entry that joined the context that was there."""

    def __init__(self, context: Context, definition: Definition, name: str) -> None:
        self._context = context
        self._definition = definition
        self._name = name
        self._since = context.clock

    async def leave(self, error: BaseException | None, before: Place | None) -> None:
        """Mark the unit if the block failed."""
        install(before)
        if error is not None:
            joined_failed(self._context, self._definition, self._name, error, since=self._since)


class Covered:
    """An atomic block inside a context."""

    def __init__(self, context: Context, scope: Scope) -> None:
        self._context = context
        self._scope = scope

    async def leave(self, error: BaseException | None, before: Place | None) -> None:
        """Commit the block or roll it back."""
        try:
            if error is None:
                await leave_normally(self._context, self._scope)
            else:
                await leave_with_error(self._context, self._scope, error)
        finally:
            install(before)


def enter_unit(owner: object, definition: Definition, name: str) -> None:
    """Enter ``async with transactional(...)`` or ``new_context(...)``."""
    context = running_context()
    decision = decide(definition.propagation, context_is_open=context is not None)
    if decision is Decision.REFUSE:
        raise TransactionRequiredError(name)
    before = current()
    if decision is Decision.JOIN and context is not None:
        install(Place(context, name, before, owner, Joined(context, definition, name)))
    else:
        context = new_context(Scope(name, atomic=False))
        install(Place(context, None, before, owner, Opened(context, definition)))


async def enter_atomic(
    owner: object, databases: tuple[Database, ...], mode: Mode, name: str
) -> AsyncSession | None:
    """Enter ``async with atomic(...)``; give the session if there is one Database."""
    context = running_context()
    scope = Scope(name, atomic=True, only=databases)
    before = current()
    if context is None:
        context = new_context(scope)
        install(Place(context, None, before, owner, Opened(context, _PLAIN)))
    else:
        await enter_block(context, scope, mode)
        install(Place(context, None, before, owner, Covered(context, scope)))
    if len(databases) != 1:
        return None
    try:
        return (await enlist(context, databases[0])).session
    except BaseException as error:  # __aexit__ won't be called
        await leave(owner, error)
        raise


async def leave(owner: object, error: BaseException | None) -> None:
    """Leave the innermost block of this task, which must be ``owner``'s."""
    place = current()
    if place is None or place.owner is not owner:
        what = "an async with block that is left in another order, or by a task that entered none,"
        name = "nobody" if place is None else place.context.name
        raise ContextClosedError(what, name)
    await place.entry.leave(error, place.before)


def block_name(kind: str) -> str:
    """Name a block after the function that it stands in, two calls up."""
    frame = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return f"{kind} block in {frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
