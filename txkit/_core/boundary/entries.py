"""The entry functions that the decorators put before a coroutine function.

Whether to join is decided at the coroutine's first step, never when it is
called: ``gather(f(), g())`` calls in one task and runs in others. The joined
path is kept bare, since it runs for every service call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txkit._core.boundary.atomic import enter_block, leave_normally, leave_with_error
from txkit._core.boundary.joining import joined_failed
from txkit._core.boundary.unit import run_unit
from txkit._core.context import Place, State, current, go_back, install
from txkit._core.scope import Scope
from txkit.errors import TransactionRequiredError
from txkit.policy.definition import Definition
from txkit.policy.propagation import Decision, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from txkit.database import Database
    from txkit.policy.current_transaction import Mode

    Function = Callable[..., Coroutine[Any, Any, Any]]

_PLAIN = Definition()


def unit_entry(function: Function, definition: Definition, name: str) -> Function:
    """Give the entry of ``@transactional`` and ``@new_context``."""
    joins = decide(definition.propagation, context_is_open=True) is Decision.JOIN
    refuses = decide(definition.propagation, context_is_open=False) is Decision.REFUSE

    async def entry(*args: Any, **kwargs: Any) -> Any:
        place = current()
        if place is not None and (context := place.context).state is State.OPEN:
            if joins:
                since = context.clock
                mine = Place(context, name, place)
                install(mine)
                try:
                    return await function(*args, **kwargs)
                except BaseException as error:
                    joined_failed(context, definition, name, error, since=since)
                    raise
                finally:
                    if current() is mine:
                        install(place)
                    else:
                        go_back(mine)
        elif refuses:
            raise TransactionRequiredError(name)
        return await run_unit(Scope(name, atomic=False), definition, function, args, kwargs)

    return entry


def atomic_entry(
    function: Function,
    databases: tuple[Database, ...],
    mode: Mode,
    name: str,
) -> Function:
    """Give the entry of ``@atomic``."""

    async def entry(*args: Any, **kwargs: Any) -> Any:
        place = current()
        scope = Scope(name, atomic=True, only=databases)
        if place is None or (context := place.context).state is not State.OPEN:
            return await run_unit(scope, _PLAIN, function, args, kwargs)
        await enter_block(context, scope, mode)
        mine = Place(context, None, place)
        install(mine)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            await leave_with_error(context, scope, error)
            raise
        else:
            await leave_normally(context, scope)
            return result
        finally:
            go_back(mine)

    return entry
