"""The entry functions that the decorators put before a coroutine function.

Whether to join is decided at the coroutine's first step, never when it is
called: ``gather(f(), g())`` calls in one task and runs in others. The joined
path is kept bare, since it runs for every service call.
"""

from __future__ import annotations

from asyncio import current_task
from functools import partial
from typing import TYPE_CHECKING, Any

from txkit._core.boundary.entered import Entered, decided, enter_atomic, enter_inside
from txkit._core.boundary.joining import joined_failed
from txkit._core.boundary.unit import run_unit
from txkit._core.context import State
from txkit._core.development import watching
from txkit._core.place import Place, current, go_back, install
from txkit._core.scope import Scope
from txkit._core.users import joinable_context, use
from txkit.policy.characteristics import AUTOCOMMIT, PLAIN
from txkit.policy.definition import Definition
from txkit.policy.propagation import INSIDE, Decision, Surroundings, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from txkit.database import Database
    from txkit.policy.current_transaction import Mode

    Function = Callable[..., Coroutine[Any, Any, Any]]
    Work = Callable[[], Coroutine[Any, Any, Any]]

_PLAIN = Definition()
_run_unit = watching(run_unit)


def unit_entry(function: Function, definition: Definition, name: str) -> Function:
    """Give the entry of ``@transactional`` and ``@new_context``."""
    how = definition.propagation
    is_bare = definition.characteristics is PLAIN and definition.timeout_s is None
    joins = (  # by whether the context is in autocommit
        is_bare and decide(how, Surroundings.TRANSACTION) is Decision.JOIN,
        is_bare and decide(how, Surroundings.AUTOCOMMIT) is Decision.JOIN,
    )

    async def entry(*args: Any, **kwargs: Any) -> Any:
        place = current()
        if (
            place is not None
            and (context := place.context).state is State.OPEN
            and joins[context.autocommit]
        ):
            if context.user.task is not current_task():
                use(context, name)
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
        return await _run(function, definition, name, args, kwargs)

    return entry


def atomic_entry(
    function: Function,
    databases: tuple[Database, ...],
    mode: Mode,
    name: str,
) -> Function:
    """Give the entry of ``@atomic``."""

    async def entry(*args: Any, **kwargs: Any) -> Any:
        context = joinable_context(name)
        scope = Scope(name, atomic=True, only=databases)
        if context is None or context.autocommit:
            return await _run_unit(scope, _PLAIN, function, args, kwargs)
        entered = await enter_atomic(scope, mode)
        return await _inside(entered, partial(function, *args, **kwargs))

    return entry


async def _run(
    function: Function,
    definition: Definition,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    decision, context = decided(definition, name)
    if context is None or decision not in INSIDE:
        asked = AUTOCOMMIT if decision is Decision.AUTOCOMMIT else definition.characteristics
        root = Scope(name, atomic=False)
        return await _run_unit(root, definition, function, args, kwargs, characteristics=asked)
    entered = await enter_inside(context, decision, definition, name)
    return await _inside(entered, partial(function, *args, **kwargs))


async def _inside(entered: Entered, work: Work) -> Any:
    """Run a call in the context that is there, in which it has joined or covers something."""
    context, entry, asked = entered.context, entered.entry, entered.asked
    mine = Place(context, entered.caller, current())
    if asked is not None:
        context.asked.append(asked)
    install(mine)
    try:
        result = await (work() if entry.limit is None else entry.limit.run_function(work))
    except BaseException as error:
        await entry.leave(mine, error)
        raise
    else:
        await entry.leave(mine, None, result)
        return result
    finally:
        if asked is not None:
            context.asked.remove(asked)
        go_back(mine)
