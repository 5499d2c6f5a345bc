"""Atomic blocks: a transaction of their own, or a savepoint inside another block.

What a block does is planned for each Database apart, and for all of them
before the first one is touched. A Database that comes into use inside is held
from then on. Follows Django's ``atomic``; the modes are those of
context-async-sqlalchemy's ``atomic_db_session``, and ``savepoint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.boundary import operations
from txkit._core.boundary.ending import (
    attach,
    commit_all,
    log_rollback,
    rollback_all,
    terminate_all,
    to_the_end,
)
from txkit._core.boundary.enlist import hold
from txkit._core.boundary.harm import harm_of_committing
from txkit._core.context import Scope
from txkit.errors import AtomicControlError, OpenTransactionError, UnexpectedRollbackError
from txkit.policy.current_transaction import Entry, Met, Mode, decide_entry

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

    from txkit._core.context import Context
    from txkit._core.participant import Participant


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
    for one, entry in plans:
        if entry is Entry.COMMIT_FIRST:
            await commit_all(scope.name, [one], close=False)
        elif entry is Entry.ROLLBACK_FIRST:
            await rollback_all(scope.name, [one], "current_transaction='rollback'", close=False)
            context.lift(one.database)
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
        if scope.asked is not None:
            await _roll_back_block(scope, scope.asked)
        else:
            _refuse_doomed(context, scope)
            await _commit_block(context, scope)
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
            context.root.doom(scope.name, error, "its coroutine was closed")
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
    if entry is Entry.COMMIT_IF_HARMLESS:
        reason = await harm_of_committing(one)
        if reason is not None:
            raise OpenTransactionError(scope.name, one.database, reason)
        entry = Entry.COMMIT_FIRST
    if entry is Entry.COMMIT_FIRST:
        mark = context.mark_on(one.database)
        if mark is not None:
            raise UnexpectedRollbackError(
                context.name, mark.culprit, mark.reason, ended=False
            ) from mark.error
    return entry


def _met(context: Context, one: Participant) -> Met:
    if context.atomic_owner(one.database) is not None:
        return Met.ATOMIC
    return Met.OPEN if one.in_transaction else Met.NOTHING


def _refuse_doomed(context: Context, scope: Scope) -> None:
    marks = [scope.mark, *(context.mark_on(one.database) for one in scope.held)]
    for mark in marks:
        if mark is not None:
            raise UnexpectedRollbackError(
                scope.name, mark.culprit, mark.reason, ended=True
            ) from mark.error


async def _commit_block(context: Context, scope: Scope) -> None:
    held = [one for one in context.in_order_of_use() if one in scope.held]
    for one in held:
        if one.has_changes:
            await operations.flush(one)
    for one in held:
        savepoint = scope.held[one]
        if savepoint is not None:
            await operations.release_savepoint(one, savepoint)
            del scope.held[one]
    await commit_all(scope.name, [one for one in held if one in scope.held], close=False)


async def _roll_back_quietly(scope: Scope, error: BaseException) -> None:
    try:
        await _roll_back_block(scope, f"{type(error).__name__} left it")
    except Exception as failure:  # noqa: BLE001 - the first error leaves
        attach(error, failure)


async def _roll_back_block(scope: Scope, reason: str) -> None:
    savepoints = [(one, point) for one, point in scope.held.items() if point is not None]
    own = [one for one, point in scope.held.items() if point is None]
    try:
        if savepoints:
            log_rollback(scope.name, f"to its savepoint: {reason}")
            await to_the_end([one for one, _ in savepoints], _roll_back_to(savepoints))
    finally:
        await rollback_all(scope.name, own, reason, close=False)


async def _roll_back_to(savepoints: list[tuple[Participant, SessionTransaction]]) -> None:
    for one, savepoint in savepoints:
        await operations.rollback_to_savepoint(one, savepoint)


def _drop(context: Context, scope: Scope) -> None:
    if scope in context.scopes:
        context.scopes.remove(scope)
