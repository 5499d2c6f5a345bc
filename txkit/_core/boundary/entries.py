"""The entry functions that the decorators put before a coroutine function.

Whether to join is decided at the coroutine's first step, never when it is
called: ``gather(f(), g())`` calls in one task and runs in others. The joined
path is kept bare, since it runs for every service call.
"""

from __future__ import annotations

from asyncio import current_task
from functools import partial
from typing import TYPE_CHECKING, Any

from txkit._core.boundary.atomic import (
    enter_block,
    enter_nested,
    leave_normally,
    leave_with_error,
)
from txkit._core.boundary.joining import joined_failed, refuse_incompatible
from txkit._core.boundary.nested import leave_nested, leave_nested_with_error
from txkit._core.boundary.unit import run_unit
from txkit._core.context import State
from txkit._core.limit import Limit
from txkit._core.place import Place, current, go_back, install, running_context, surroundings
from txkit._core.scope import Scope
from txkit._core.users import use
from txkit.errors import TransactionNotAllowedError, TransactionRequiredError
from txkit.policy.characteristics import AUTOCOMMIT, PLAIN
from txkit.policy.definition import Definition
from txkit.policy.propagation import Decision, Surroundings, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from txkit._core.context import Context
    from txkit.database import Database
    from txkit.policy.current_transaction import Mode

    Function = Callable[..., Coroutine[Any, Any, Any]]
    Work = Callable[[], Coroutine[Any, Any, Any]]

_PLAIN = Definition()


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
        context = running_context()
        scope = Scope(name, atomic=True, only=databases)
        if context is None or context.autocommit:
            return await run_unit(scope, _PLAIN, function, args, kwargs)
        use(context, name)
        await enter_block(context, scope, mode)
        mine = Place(context, None, current())
        install(mine)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            await leave_with_error(context, scope, error)
            raise
        else:
            await leave_normally(context, scope, result)
            return result
        finally:
            go_back(mine)

    return entry


def decided(definition: Definition, name: str) -> tuple[Decision, Context | None]:
    """Look up what a call does about the context that is open, or refuse it.

    Raises:
        TransactionRequiredError, TransactionNotAllowedError: nothing is marked.
    """
    context = running_context()
    decision = decide(definition.propagation, surroundings(context))
    if decision is Decision.REFUSE_WITHOUT:
        raise TransactionRequiredError(name)
    if decision is Decision.REFUSE_WITHIN and context is not None:
        raise TransactionNotAllowedError(name, context.name)
    return decision, context


async def _run(
    function: Function,
    definition: Definition,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    decision, context = decided(definition, name)
    if context is None or decision not in {Decision.JOIN, Decision.SAVEPOINT}:
        asked = AUTOCOMMIT if decision is Decision.AUTOCOMMIT else definition.characteristics
        root = Scope(name, atomic=False)
        return await run_unit(root, definition, function, args, kwargs, characteristics=asked)
    use(context, name)
    await refuse_incompatible(context, definition.characteristics, name)
    limit = None if definition.timeout_s is None else Limit(name, definition.timeout_s)
    work = partial(function, *args, **kwargs)
    if limit is not None:
        work = partial(limit.run_function, work)
    if decision is Decision.JOIN:
        return await _join(context, definition, name, limit, work)
    return await _nest(context, definition, name, limit, work)


async def _join(
    context: Context, definition: Definition, name: str, limit: Limit | None, work: Work
) -> Any:
    since = context.clock
    mine = Place(context, name, current())
    asked = (name, definition.characteristics)
    context.asked.append(asked)
    install(mine)
    try:
        return await work()
    except BaseException as error:
        joined_failed(context, definition, name, error, since=since, limit=limit)
        raise
    finally:
        context.asked.remove(asked)
        go_back(mine)


async def _nest(
    context: Context, definition: Definition, name: str, limit: Limit | None, work: Work
) -> Any:
    scope = Scope(name, atomic=True, commits=False)
    await enter_nested(context, scope)
    mine = Place(context, None, current())
    asked = (name, definition.characteristics)
    context.asked.append(asked)
    install(mine)
    try:
        result = await work()
    except BaseException as error:
        await leave_nested_with_error(context, scope, definition, error, limit)
        raise
    else:
        await leave_nested(context, scope, definition, result)
        return result
    finally:
        context.asked.remove(asked)
        go_back(mine)
