"""Run hooks: those before a commit inside it, those after an end with no context.

What is due runs in a task of its own, so that a cancelled caller leaves nobody
untold, one after the other, all of them whatever fails. Afterwards, then only, it
complains.

Must not decide which hook is due: ``hooks`` does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from txkit._core.control import ByBoundary
from txkit._core.finish import complete
from txkit._core.hooks import Hook, Kind, Ledger, Outcome
from txkit._core.notes import attach
from txkit._core.place import Place, current, install, nowhere
from txkit._core.turn import User
from txkit.errors import AfterCommitError

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit._core.participant import Participant
    from txkit._core.scope import Scope

log = logging.getLogger("txkit")

_MOST_ROUNDS = 100
_FINISH_TIMEOUT_S = 10.0  # Database's default, for a context that used none


async def prepare(
    context: Context,
    owner: Scope,
    participants: Callable[[], Iterable[Participant]],
    *,
    by_hand: bool = False,
) -> None:
    """Flush, and run the ``before_commit`` hooks until none is left, each round flushed.

    One that fails stays, with those behind it: the next commit, if one comes, asks it again.
    Those of ``owner``, with the savepoints that are still open in it, and of the context
    those that wait for no other transaction.

    Raises:
        RuntimeError: they register new ones without an end.
        Exception: what a hook or a flush raised.
    """
    is_boundary = owner is context.root and not by_hand
    for _ in range(_MOST_ROUNDS):
        ones = list(participants())
        for one in ones:
            if one.has_changes:
                with ByBoundary(one):
                    await one.session.flush()
        if context.ledger is None:
            return
        points = [point for one in ones for point in one.points.values()]
        inside = [point for point in points if point.order > owner.order]
        ending = None if is_boundary else [one.witness for one in ones]
        hooks = context.ledger.take_before(owner, ending, by_hand=by_hand, inside=inside)
        if not hooks:
            return
        await _run_before(context, context.ledger, hooks)
    message = (
        f"before_commit hooks of {owner.name!r} have registered new ones {_MOST_ROUNDS} times over:"
        " a hook that adds itself again never comes to an end"
    )
    raise RuntimeError(message)


async def _run_before(context: Context, ledger: Ledger, hooks: list[Hook]) -> None:
    outer, context.preparing = context.preparing, True
    try:
        for place, hook in enumerate(hooks):
            try:
                await _call(hook.function)
            except BaseException:
                ledger.give_back(hooks[place:])
                raise
    finally:
        context.preparing = outer


async def tell_after(
    context: Context, name: str, *, committed: bool, result: object = None
) -> None:
    """Run what is due after an end that is no error.

    Raises:
        AfterCommitError: hooks failed after a commit, which stays.
        ExceptionGroup: hooks failed after a rollback that was wanted.
    """
    ledger = context.ledger
    if ledger is None or not (ledger.due or ledger.failures):
        return
    try:
        await _run_due(context)
    except BaseException as error:
        attach_failures(context, error)
        raise
    raise_failures(context, name, committed=committed, result=result)


async def tell_beside(context: Context, error: BaseException) -> None:
    """Run what is due while ``error`` leaves: what fails is attached to it."""
    ledger = context.ledger
    if ledger is None or not (ledger.due or ledger.failures):
        return
    leaving, hurried = error, isinstance(error, asyncio.CancelledError)
    try:
        await _run_due(context, hurried=hurried)
    except asyncio.CancelledError as cancelled:
        if not hurried:  # else the first one leaves
            leaving = cancelled
            raise
    finally:
        attach_failures(context, leaving)


def attach_failures(context: Context | None, error: BaseException) -> None:
    """Let the exception that leaves tell of the hooks that failed beside it."""
    ledger = None if context is None else context.ledger
    if ledger is not None:
        for outcome, failure in ledger.failures:
            attach(error, f"a hook that ran after the end ({outcome}) failed too", failure)
        ledger.failures.clear()


async def prepare_by_hand(one: Participant) -> None:
    """Run the hooks that a commit of this one Database settles."""
    context = one.context
    if context is not None:
        await prepare(context, context.root, lambda: [one], by_hand=True)


async def tell_by_hand(one: Participant) -> None:
    """Run what an end by hand made due; what fails is kept until it can be raised."""
    if one.context is not None:
        await _run_due(one.context)


def raise_failures(
    context: Context | None, name: str, *, committed: bool, result: object = None
) -> None:
    """Complain of the hooks that failed since the last time.

    Raises:
        AfterCommitError: ``name`` is committed.
        ExceptionGroup: it is not, as it was to be.
    """
    ledger = None if context is None else context.ledger
    if ledger is None or not ledger.failures:
        return
    failures = [failure for _, failure in ledger.failures]
    ledger.failures.clear()
    if committed:
        error = AfterCommitError(name, failures)
        error.result = result
        raise error
    message = f"{name!r} has ended as it was to, and hooks that ran after a rollback failed"
    raise ExceptionGroup(message, failures)


def drop(context: Context) -> None:
    """Give the hooks up: nothing can be awaited any more."""
    dropped = 0 if context.ledger is None else context.ledger.drop()
    if dropped:
        log.warning("%s: %d hooks were not run, its coroutine was closed", context.name, dropped)


async def _run_due(context: Context, *, hurried: bool = False) -> None:
    """Run everything that is due; what fails is kept in the ledger."""
    ledger = context.ledger
    assert ledger is not None
    timeout_s = max([one.finish_timeout_s for one in context.used], default=_FINISH_TIMEOUT_S)
    here, aside = current(), nowhere(context)
    while due := ledger.take_due():
        install(aside)  # the task that runs them takes this along
        try:
            await complete(
                _run(aside, context.name, due, ledger.failures),
                timeout_s=timeout_s,
                discard=lambda: None,
                hurried=hurried,
            )
        finally:
            install(here)


async def _run(
    aside: Place,
    name: str,
    due: list[tuple[Hook, Outcome]],
    failures: list[tuple[Outcome, Exception]],
) -> None:
    aside.context.user = User(asyncio.current_task())
    for number, (hook, outcome) in enumerate(due, 1):
        arguments = (str(outcome),) if hook.kind is Kind.AFTER_COMPLETION else ()
        try:
            await _call(hook.function, *arguments)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the time to finish is over
                left = len(due) - number
                log.warning("%s: a hook was broken off, %d after it were not run", name, left)
                raise
            failure: Exception = RuntimeError("a hook awaited what was cancelled")
            failure.__cause__ = error
        except Exception as error:  # noqa: BLE001 - told below, after the others
            failure = error
        else:
            continue
        if hook.robust:
            message = "%s: a robust %s hook failed"
            log.error(message, name, hook.kind.value, exc_info=failure)
        else:
            failures.append((outcome, failure))


async def _call(function: Callable[..., Any], *arguments: object) -> None:
    result = function(*arguments)
    if inspect.isawaitable(result):
        await result
