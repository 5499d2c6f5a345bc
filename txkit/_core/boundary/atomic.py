"""Atomic blocks: a transaction of their own, or a savepoint inside another block.

What a block does is planned for each Database apart, and for all of them
before the first one is touched. A Database that comes into use inside is held
from then on. Follows Django's ``atomic``; the modes are those of
context-async-sqlalchemy's ``atomic_db_session``, and ``savepoint``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from txkit._core.boundary import operations
from txkit._core.boundary.ending import (
    commit_all,
    each,
    log_rollback,
    rollback_all,
    terminate_all,
    to_the_end,
)
from txkit._core.boundary.enlist import hold
from txkit._core.boundary.harm import harm_of_committing
from txkit._core.boundary.notes import attach, in_words
from txkit._core.scope import Mark
from txkit.errors import AtomicControlError, OpenTransactionError
from txkit.policy.current_transaction import Entry, Met, Mode, decide_entry

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit._core.participant import Participant
    from txkit._core.scope import Scope


async def enter_block(context: Context, scope: Scope, mode: Mode) -> None:
    """Plan for every Database that the block covers, then act, then cover them.

    Raises:
        AtomicControlError: inside another block, with a mode that would break it up.
        OpenTransactionError: a transaction is open that must not just be committed.
        UnexpectedRollbackError: what was to be committed first can't be.
    """
    _refuse_control(context, scope, mode)
    plans = [
        (one, await _plan(context, scope, one, mode))
        for one in context.in_order_of_use()
        if scope.owns(one.database)
    ]
    first = [one for one, entry in plans if entry is Entry.COMMIT_FIRST]
    if first:
        await commit_all(scope.name, first, close=False)
    undone = [one for one, entry in plans if entry is Entry.ROLLBACK_FIRST]
    if undone:
        await rollback_all(scope.name, undone, "current_transaction='rollback'", close=False)
    for one in undone:
        context.rolled_back(one.database, by_hand=True)
    scope.order = context.tick()
    context.scopes.append(scope)
    try:
        for one, entry in plans:
            if entry is Entry.SAVEPOINT:
                scope.held[one] = await operations.begin_savepoint(one)
            else:
                await hold(context, len(context.scopes) - 1, one)
    except BaseException as error:
        await leave_with_error(context, scope, error)
        raise


async def leave_normally(context: Context, scope: Scope) -> None:
    """Commit the block's own transactions and release its savepoints, or roll them back.

    Raises:
        UnexpectedRollbackError: a joined function failed; the block is rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        Exception: the commit was refused; the block is rolled back.
    """
    try:
        mark = _mark_on(context, scope)
        if mark is None:
            await _commit_block(context, scope)
        elif not mark.own:
            raise mark.refusal(scope.name, ended=True) from mark.error
        elif mark is scope.mark:
            await _roll_back_block(scope, mark.reason)
        else:  # what is around it asked, and rolls back in the end: no failure of the block
            await _release(context, scope)
            await rollback_all(scope.name, list(scope.held), mark.reason, close=False)
    except BaseException as error:
        await _roll_back_quietly(scope, error)
        raise
    finally:
        _drop(context, scope)


async def leave_with_error(context: Context, scope: Scope, error: BaseException) -> None:
    """Roll the block back as a whole; the caller raises ``error`` again."""
    try:
        if isinstance(error, GeneratorExit):
            # Nothing can be awaited: the connection goes, and with it what the caller did on it.
            terminate_all(scope.name, list(scope.held))
            context.doom_all(Mark(scope.name, "its coroutine was closed", error))
        else:
            await _roll_back_quietly(scope, error)
    finally:
        _drop(context, scope)


def _refuse_control(context: Context, scope: Scope, mode: Mode) -> None:
    if decide_entry(mode, Met.ATOMIC) is not Entry.REFUSE_CONTROL:
        return
    for outer in context.scopes:
        if outer.atomic and (not scope.only or any(map(outer.owns, scope.only))):
            operation = f"current_transaction={str(mode.declared)!r}"
            raise AtomicControlError(operation, outer.name)


async def _plan(context: Context, scope: Scope, one: Participant, mode: Mode) -> Entry:
    entry = decide_entry(mode, _met(context, one))
    if entry is Entry.REFUSE_OPEN:
        raise OpenTransactionError(scope.name, one.database, "current_transaction='raise'")
    if entry in {Entry.COMMIT_IF_HARMLESS, Entry.COMMIT_FIRST}:
        one.refuse_broken()
    if entry is Entry.COMMIT_IF_HARMLESS:
        reason = await harm_of_committing(one)
        if reason is not None:
            raise OpenTransactionError(scope.name, one.database, reason)
        entry = Entry.COMMIT_FIRST
    return entry


def _met(context: Context, one: Participant) -> Met:
    if context.atomic_owner(one.database) is not None:
        return Met.ATOMIC
    return Met.OPEN if one.in_transaction else Met.NOTHING


def _mark_on(context: Context, scope: Scope) -> Mark | None:
    """Give the mark that keeps the block from committing: its own, or one around it."""
    if scope.mark is not None or not context.doomed:
        return scope.mark
    return next((mark for one in scope.held if (mark := context.mark_on(one))), None)


async def _commit_block(context: Context, scope: Scope) -> None:
    for one in scope.held:
        if one.has_changes:
            await operations.flush(one)
    released: list[Participant] = []
    try:
        await _release(context, scope, released)
        own = [one for one in context.in_order_of_use() if one in scope.held]
        await commit_all(scope.name, own, close=False)
    except BaseException as error:
        # What was released is a part of the enclosing unit now, and can't be undone alone.
        context.doom_around(scope, released, Mark(scope.name, in_words(error), error))
        raise


async def _release(
    context: Context, scope: Scope, released: list[Participant] | None = None
) -> None:
    """Release the block's savepoints; what it holds afterwards are its own transactions."""
    for one in context.in_order_of_use():
        savepoint = scope.held.get(one)
        if savepoint is not None:
            await operations.release_savepoint(one, savepoint)
            del scope.held[one]
            if released is not None:
                released.append(one)


async def _roll_back_quietly(scope: Scope, error: BaseException) -> None:
    try:
        await _roll_back_block(scope, f"{type(error).__name__} left it")
    except Exception as failure:  # noqa: BLE001 - the first error leaves
        attach(error, "cleaning up failed too", failure)


async def _roll_back_block(scope: Scope, reason: str) -> None:
    savepoints = [(one, point) for one, point in scope.held.items() if point is not None]
    own = [one for one, point in scope.held.items() if point is None]
    try:
        if savepoints:
            log_rollback(scope.name, f"to its savepoint: {reason}")
            work = each(partial(operations.rollback_to_savepoint, *held) for held in savepoints)
            await to_the_end([one for one, _ in savepoints], work)
    finally:
        await rollback_all(scope.name, own, reason, close=False)


def _drop(context: Context, scope: Scope) -> None:
    if scope in context.scopes:
        context.scopes.remove(scope)
