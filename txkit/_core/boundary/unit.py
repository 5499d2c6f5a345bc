"""Open a context around a coroutine, and end it: the boundary itself.

The end follows one order: the outcome rule, then what the unit asked for
itself, then what a joined function left behind, then the commit. The user's
exception always leaves unchanged; what fails beside it is attached to it.
The context is taken away whatever happens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from txkit._core.boundary.ending import attach, commit_all, rollback_all, terminate_all
from txkit._core.context import Context, Scope, State, current, install
from txkit.errors import UnexpectedRollbackError
from txkit.policy.outcome import Injected, error_commits, find_injected, result_commits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from txkit.policy.definition import Definition

log = logging.getLogger("txkit")


def begin_context(root: Scope) -> tuple[Context, Context | None]:
    """Make a context the current one; also give the one to restore at its end."""
    previous = current()
    outer = previous if previous is not None and previous.state is State.OPEN else None
    context = Context(root, outer)
    install(context)
    return context, previous


def end_context(context: Context, previous: Context | None) -> None:
    """Close the context for good and bring the one before it back."""
    context.state = State.CLOSED
    context.root.held.clear()  # it points back: no cycle for the collector
    install(previous)


async def run_unit(
    root: Scope,
    definition: Definition,
    function: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run ``function`` in a context of its own, and end that by its outcome."""
    injected = find_injected(args, kwargs)
    context, previous = begin_context(root)
    try:
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            await end_with_error(context, definition, error, injected)
            raise
        await end_normally(context, definition, result, injected)
        return result
    finally:
        end_context(context, previous)


async def end_normally(
    context: Context, definition: Definition, result: object, injected: Injected = ()
) -> None:
    """Commit, or roll back for a reason that is no exception.

    Raises:
        UnexpectedRollbackError: a joined function failed; rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        Exception: the commit was refused, or ``outcome`` raised; rolled back.
    """
    root = context.root
    try:
        if not result_commits(definition, result, injected):
            await _roll_back_wanted(context, "its result says failure")
        elif root.asked is not None:
            await _roll_back_wanted(context, root.asked)
        elif (mark := context.final_mark()) is not None:
            raise UnexpectedRollbackError(
                context.name, mark.culprit, mark.reason, ended=True
            ) from mark.error
        elif context.participants:
            await commit_all(context.name, context.in_order_of_use(), close=True)
    except BaseException as error:
        await _roll_back_after(context, error)
        raise


async def end_with_error(
    context: Context, definition: Definition, error: BaseException, injected: Injected = ()
) -> None:
    """Roll back, or commit if the rules say so; the caller raises ``error`` again."""
    if isinstance(error, GeneratorExit):
        terminate_all(context.name, context.in_order_of_use())
        return
    if _commits_with(context, definition, error, injected):
        try:
            await commit_all(context.name, context.in_order_of_use(), close=True)
        except Exception as failure:  # noqa: BLE001 - the user's exception leaves
            error.add_note(f"txkit: the commit failed: {type(failure).__name__}: {failure}")
        except BaseException as failure:
            await _roll_back_after(context, failure)
            raise
    await _roll_back_after(context, error)


def _commits_with(
    context: Context, definition: Definition, error: BaseException, injected: Injected
) -> bool:
    try:
        if not error_commits(definition, error, injected, at_boundary=True):
            return False
    except Exception as failure:  # noqa: BLE001 - the user's exception leaves
        error.add_note(f"txkit: the outcome rule raised: {type(failure).__name__}: {failure}")
        return False
    if context.root.asked is not None:
        return False
    mark = context.final_mark()
    if mark is None or mark.error is error:
        return True
    error.add_note(
        f"txkit: rolled back although the rules would commit: {mark.culprit!r} joined"
        f" {context.name!r} and failed before ({mark.reason})"
    )
    return False


async def _roll_back_wanted(context: Context, reason: str) -> None:
    try:
        await rollback_all(context.name, context.in_order_of_use(), reason, close=True)
    except Exception:
        log.warning(
            "%s: the rollback failed, its connection was discarded", context.name, exc_info=True
        )


async def _roll_back_after(context: Context, error: BaseException) -> None:
    if not context.participants:
        return
    try:
        await rollback_all(
            context.name,
            context.in_order_of_use(),
            f"{type(error).__name__} left it",
            close=True,
        )
    except Exception as failure:  # noqa: BLE001 - the first error leaves
        attach(error, failure)
