"""Open a context around a coroutine, and end it: the boundary itself.

The end follows one order: the outcome rule, then what the unit asked for
itself, then what a joined function left behind, then the commit. The user's
exception always leaves unchanged; what fails beside it is attached to it.
The context is taken away whatever happens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from txkit._core.boundary.ending import commit_all, rollback_after, rollback_all, terminate_all
from txkit._core.boundary.notes import attach
from txkit._core.context import Context, Place, current, go_back, install, running_context
from txkit._core.scope import Scope
from txkit.policy.outcome import (
    Injected,
    error_commits,
    find_injected,
    parts_of,
    result_commits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from txkit.policy.definition import Definition

log = logging.getLogger("txkit")


def new_context(root: Scope) -> Context:
    """Make a context inside the one that is open, if one is."""
    return Context(root, running_context())


def end_context(mine: Place) -> None:
    """Close the context of a place for good and go back to the place before it."""
    mine.context.close()
    go_back(mine)


async def run_unit(
    root: Scope,
    definition: Definition,
    function: Callable[..., Coroutine[Any, Any, Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run ``function`` in a context of its own, and end that by its outcome."""
    injected = find_injected(args, kwargs)
    context = new_context(root)
    mine = Place(context, None, current())
    install(mine)
    try:
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            await end_with_error(context, definition, error, injected)
            raise
        await end_normally(context, definition, result, injected)
        return result
    finally:
        end_context(mine)


async def end_normally(
    context: Context, definition: Definition, result: object, injected: Injected = ()
) -> None:
    """Commit, or roll back for a reason that is no exception.

    Raises:
        UnexpectedRollbackError: a joined function failed; rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        Exception: the commit was refused, or ``outcome`` raised; rolled back.
    """
    try:
        if not result_commits(definition, result, injected):
            await _roll_back_wanted(context, "its result says failure")
        elif context.doomed and (mark := context.final_mark()) is not None:
            if not mark.own:
                raise mark.refusal(context.name, ended=True) from mark.error
            await _roll_back_wanted(context, mark.reason)
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
            attach(error, "the commit failed", failure)
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
        attach(error, "the outcome rule raised", failure)
        return False
    leaving = parts_of(error)
    for mark in context.final_marks():
        if mark.own:
            return False
        if not any(mark.error is part for part in leaving):
            attach(
                error,
                f"rolled back although the rules would commit: {mark.culprit!r} failed in"
                f" {context.name!r} before ({mark.reason})",
            )
            return False
    return True


async def _roll_back_wanted(context: Context, reason: str) -> None:
    try:
        await rollback_all(context.name, context.in_order_of_use(), reason, close=True)
    except Exception:
        log.warning(
            "%s: the rollback failed, its connection was discarded", context.name, exc_info=True
        )


async def _roll_back_after(context: Context, error: BaseException) -> None:
    if context.participants:
        await rollback_after(context.name, context.in_order_of_use(), error)
