"""The same boundaries as ``async with`` blocks.

The object that is entered keeps nothing: what an entry needs at its exit lies
on the context, as a stack, so that one object can be entered again, inside
itself and by many tasks at once.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from txkit._core.boundary.atomic import enter_block, leave_normally, leave_with_error
from txkit._core.boundary.enlist import enlist
from txkit._core.boundary.joining import joined_failed
from txkit._core.boundary.unit import begin_context, end_context, end_normally, end_with_error
from txkit._core.context import Context, Scope, State, current
from txkit.errors import ContextClosedError, TransactionRequiredError
from txkit.policy.definition import Definition
from txkit.policy.propagation import Decision, decide

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit.database import Database
    from txkit.policy.current_transaction import Mode

_PLAIN = Definition()


class Opened:
    """An entry that opened its context."""

    def __init__(self, context: Context, previous: Context | None, definition: Definition) -> None:
        self._context = context
        self._previous = previous
        self._definition = definition

    async def leave(self, error: BaseException | None) -> None:
        """End the context."""
        try:
            if error is None:
                await end_normally(self._context, self._definition, None)
            else:
                await end_with_error(self._context, self._definition, error)
        finally:
            end_context(self._context, self._previous)


class Joined:
    """An entry that joined the context that was there."""

    def __init__(self, scope: Scope, name: str, definition: Definition) -> None:
        self._scope = scope
        self._name = name
        self._definition = definition
        self._caller, scope.caller = scope.caller, name

    async def leave(self, error: BaseException | None) -> None:
        """Mark the unit if the block failed."""
        self._scope.caller = self._caller
        if error is not None:
            joined_failed(self._scope, self._definition, self._name, error)


class Covered:
    """An atomic block inside a context."""

    def __init__(self, context: Context, scope: Scope) -> None:
        self._context = context
        self._scope = scope

    async def leave(self, error: BaseException | None) -> None:
        """Commit the block or roll it back."""
        if error is None:
            await leave_normally(self._context, self._scope)
        else:
            await leave_with_error(self._context, self._scope, error)


def enter_unit(owner: object, definition: Definition, name: str) -> None:
    """Enter ``async with transactional(...)`` or ``new_context(...)``."""
    context = current()
    is_open = context is not None and context.state is State.OPEN
    decision = decide(definition.propagation, context_is_open=is_open)
    if decision is Decision.REFUSE:
        raise TransactionRequiredError(name)
    if decision is Decision.JOIN and context is not None:
        context.blocks.append((owner, Joined(context.scopes[-1], name, definition)))
    else:
        context, previous = begin_context(Scope(name, atomic=False))
        context.blocks.append((owner, Opened(context, previous, definition)))


async def enter_atomic(
    owner: object, databases: tuple[Database, ...], mode: Mode, name: str
) -> AsyncSession | None:
    """Enter ``async with atomic(...)``; give the session if there is one Database."""
    context = current()
    scope = Scope(name, atomic=True, only=databases)
    if context is None or context.state is not State.OPEN:
        context, previous = begin_context(scope)
        context.blocks.append((owner, Opened(context, previous, _PLAIN)))
    else:
        await enter_block(context, scope, mode)
        context.blocks.append((owner, Covered(context, scope)))
    if len(databases) != 1:
        return None
    try:
        return (await enlist(context, databases[0])).session
    except BaseException as error:  # __aexit__ won't be called
        await leave(owner, error)
        raise


async def leave(owner: object, error: BaseException | None) -> None:
    """Leave the innermost block, which must be ``owner``'s."""
    context = current()
    if context is None or not context.blocks or context.blocks[-1][0] is not owner:
        name = "nobody" if context is None else context.name
        what = "an async with block that was left in another order or task"
        raise ContextClosedError(what, name)
    entry: Opened | Joined | Covered = context.blocks.pop()[1]
    await entry.leave(error)


def block_name(kind: str) -> str:
    """Name a block after the function that it stands in, two calls up."""
    frame = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return f"{kind} block in {frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
