"""Open a context around a coroutine, and end it: the boundary itself.

The end follows one order: the outcome rule, then what the unit asked for itself,
then what a joined function or a database error left behind, then the hooks that
run before a commit, the commit, and those that run after. The user's exception
always leaves unchanged; what fails beside it is attached to it. The context is
taken away whatever happens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from txkit._core.boundary.ending import (
    commit_all,
    rollback_after,
    rollback_all,
    terminate_all,
)
from txkit._core.context import Context, State
from txkit._core.hooks import Outcome
from txkit._core.limit import Limit
from txkit._core.notes import attach
from txkit._core.place import Place, current, go_back, install, surrounding_context
from txkit._core.telling import drop, prepare, tell_after, tell_beside
from txkit._core.users import other_user, refuse_half
from txkit.errors import ConcurrentSessionUseError
from txkit.policy.characteristics import PLAIN
from txkit.policy.outcome import (
    Injected,
    error_commits,
    find_injected,
    parts_of,
    read_tuple,
    result_commits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from txkit._core.scope import Scope
    from txkit.policy.characteristics import Characteristics
    from txkit.policy.definition import Definition

log = logging.getLogger("txkit")


def new_context(root: Scope, definition: Definition, characteristics: Characteristics) -> Context:
    """Make a context inside the one that is open, if one is."""
    limit = None if definition.timeout_s is None else Limit(root.name, definition.timeout_s)
    return Context(root, surrounding_context(), characteristics, limit)


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
    *,
    characteristics: Characteristics = PLAIN,
) -> Any:
    """Run ``function`` in a context of its own, and end that by its outcome."""
    injected = find_injected(args, kwargs)
    context = new_context(root, definition, characteristics)
    mine = Place(context, None, current())
    install(mine)
    try:
        try:
            if context.limit is None:
                result = await function(*args, **kwargs)
            else:
                result = await context.limit.run(function(*args, **kwargs))
        except BaseException as error:
            await end_with_error(context, definition, error, injected)
            raise
        injected = read_tuple(injected, function, result)
        await end_normally(context, definition, result, injected)
        return result
    finally:
        end_context(mine)


async def end_normally(
    context: Context, definition: Definition, result: object, injected: Injected = ()
) -> None:
    """Commit, or roll back for a reason that is no exception.

    Raises:
        UnexpectedRollbackError: a joined function or a statement failed; rolled back.
        TransactionTimeoutError: the limit passed before COMMIT was sent; rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        CommitOutcomeUnknownError: COMMIT was not answered.
        AfterCommitError: committed, and hooks failed.
        Exception: the commit was refused, or ``outcome`` or a hook raised; rolled back.
    """
    wanted = Outcome.COMMITTED
    context.doom_unfinished()
    try:
        reason = _reason_to_roll_back(context, definition, result, injected)
        if reason is None:
            refuse_half(context, context.name)
        if reason is None and _is_to_be_prepared(context):
            await _within(context, prepare(context, context.root, context.in_order_of_use))
            reason = _reason_of(context)
            if reason is None:
                refuse_half(context, context.name)
        if reason is not None:
            wanted = Outcome.ROLLED_BACK
            await _roll_back_wanted(context, reason)
        elif context.participants:
            await _commit(context)
    except BaseException as error:
        await _roll_back_after(context, error)
        raise
    if context.ledger is not None:
        await _tell(context, wanted, result)


async def end_with_error(
    context: Context, definition: Definition, error: BaseException, injected: Injected = ()
) -> None:
    """Roll back, or commit if the rules say so; the caller raises ``error`` again."""
    if isinstance(error, GeneratorExit):
        terminate_all(context.name, context.in_order_of_use())
        drop(context)
        return
    wanted = Outcome.ROLLED_BACK
    context.doom_unfinished()
    if _commits_with(context, definition, error, injected):
        try:
            refuse_half(context, context.name)
            if _is_to_be_prepared(context):
                await _within(context, prepare(context, context.root, context.in_order_of_use))
            if _may_commit_with(context, error):
                refuse_half(context, context.name)
                await _commit(context)
                wanted = Outcome.COMMITTED
        except Exception as failure:  # noqa: BLE001 - the user's exception leaves
            attach(error, "the commit failed", failure)
        except BaseException as failure:
            await _roll_back_after(context, failure)
            raise
    await _roll_back_after(context, error, wanted)


def _is_to_be_prepared(context: Context) -> bool:
    """Whether hooks may have to run; a flush may register them."""
    return context.ledger is not None or any(
        one.has_changes for one in context.participants.values()
    )


def _reason_to_roll_back(
    context: Context, definition: Definition, result: object, injected: Injected
) -> str | None:
    if not result_commits(definition, result, injected):
        return "its result says failure"
    return _reason_of(context)


def _reason_of(context: Context) -> str | None:
    """Say why a unit that asked for it itself is rolled back; raise if somebody else doomed it."""
    mark = context.final_mark() if context.doomed else None
    if mark is None:
        return None
    if not mark.own:
        refuse_half(context, context.name)
        raise mark.refusal(context.name, ended=True) from mark.error
    return mark.reason


def _commits_with(
    context: Context, definition: Definition, error: BaseException, injected: Injected
) -> bool:
    if context.limit is not None and error is context.limit.error:
        return False
    try:
        if not error_commits(definition, error, injected, at_boundary=True):
            return False
    except Exception as failure:  # noqa: BLE001 - the user's exception leaves
        attach(error, "the outcome rule raised", failure)
        return False
    return _may_commit_with(context, error)


def _may_commit_with(context: Context, error: BaseException) -> bool:
    """Whether nothing but what is leaving speaks against the commit that the rules want."""
    leaving = parts_of(error)
    for mark in context.final_marks():
        if mark.own:
            return False
        if mark.final or not any(mark.error is part for part in leaving):
            attach(
                error,
                f"rolled back although the rules would commit: {mark.culprit!r} failed in"
                f" {context.name!r} before ({mark.reason})",
            )
            return False
    return True


async def _commit(context: Context) -> None:
    context.check_limit()
    context.state = State.ENDING
    if context.ledger is not None:
        context.ledger.open_books(is_final=True)
    await commit_all(context.name, context.in_order_of_use(), close=True)


async def _within(context: Context, work: Coroutine[Any, Any, None]) -> None:
    await (work if context.limit is None else context.limit.run(work))


async def _roll_back_wanted(context: Context, reason: str) -> None:
    context.state = State.ENDING
    if context.ledger is not None:
        context.ledger.open_books(is_final=True)
    try:
        await rollback_all(context.name, context.in_order_of_use(), reason, close=True)
    except Exception:
        log.warning(
            "%s: the rollback failed, its connection was discarded", context.name, exc_info=True
        )


async def _roll_back_after(
    context: Context, error: BaseException, wanted: Outcome = Outcome.ROLLED_BACK
) -> None:
    if context.ledger is not None:
        context.ledger.open_books(is_final=True)
    leaving = error
    context.state = State.ENDING
    _tell_of_other_user(context, error)
    if context.participants:
        try:
            await rollback_after(context.name, context.in_order_of_use(), error)
        except BaseException as failure:  # noqa: BLE001 - a cancellation, raised below
            leaving = failure
    if context.ledger is not None:
        context.ledger.end(wanted)
        await tell_beside(context, leaving)
    if leaving is not error:
        raise leaving


def _tell_of_other_user(context: Context, error: BaseException) -> None:
    other = other_user(context)
    if other is not None and not isinstance(error, ConcurrentSessionUseError):
        attach(error, f"task {other!r} was still using the context of {context.name!r}")


async def _tell(context: Context, wanted: Outcome, result: object) -> None:
    if context.ledger is not None:
        context.ledger.end(wanted)
        committed = wanted is Outcome.COMMITTED
        await tell_after(context, context.name, committed=committed, result=result)
