"""Atomic blocks: a transaction of their own, or a savepoint inside another block.

What a block does is planned for each Database apart, and for all of them
before the first one is touched. A Database that comes into use inside is held
from then on. A ``nested`` call is a block that sets savepoints and commits
nothing. Follows Django's ``atomic``; the modes are those of
context-async-sqlalchemy's ``atomic_db_session``, and ``savepoint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.boundary import operations
from txkit._core.boundary.byhand import commit_by_hand, rollback_by_hand
from txkit._core.boundary.ending import commit_all, flush_all, rollback_all, terminate_all
from txkit._core.boundary.enlist import hold
from txkit._core.boundary.harm import harm_of_committing
from txkit._core.boundary.savepoints import release_all, roll_back_block
from txkit._core.hooks import Outcome
from txkit._core.notes import attach, in_words, left_by
from txkit._core.permission import refuse_broken
from txkit._core.scope import Mark
from txkit._core.telling import prepare, tell_after, tell_beside
from txkit._core.users import other_user, refuse_half
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
        await commit_by_hand(context, scope.name, first)
    undone = [one for one, entry in plans if entry is Entry.ROLLBACK_FIRST]
    if undone:
        reason = "current_transaction='rollback'"
        await rollback_by_hand(context, scope.name, undone, reason, close=False)
    await _cover(context, scope, plans)


async def enter_nested(context: Context, scope: Scope) -> None:
    """Set a savepoint on every open transaction; what is opened inside is held whole."""
    plans = [
        (one, Entry.SAVEPOINT if one.in_transaction else Entry.OWN)
        for one in context.in_order_of_use()
    ]
    await _cover(context, scope, plans)


async def leave_normally(context: Context, scope: Scope, result: object = None) -> None:
    """Commit the block's own transactions and release its savepoints, or roll them back.

    Raises:
        UnexpectedRollbackError: a joined function or a statement failed; rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        CommitOutcomeUnknownError: COMMIT was not answered.
        AfterCommitError: committed, and hooks failed.
        Exception: the commit was refused, or a hook raised; the block is rolled back.
    """
    _open_books(context)
    try:
        mark = _mark_on(context, scope)
        is_part = _is_part(context, scope)
        if mark is None:
            refuse_half(context, scope.name)
        if mark is None and not is_part:
            await prepare(context, scope, lambda: scope.held)
            mark = _mark_on(context, scope)
        if mark is None:
            await _commit_block(context, scope)
        elif not mark.own:
            raise mark.refusal(scope.name, ended=True) from mark.error
        elif mark is scope.mark:
            await roll_back_block(scope, mark.reason)
        else:  # what is around it asked, and rolls back in the end: no failure of the block
            await release_all(context, scope)
            if scope.commits:
                await rollback_all(scope.name, list(scope.held), mark.reason, close=False)
    except BaseException as error:
        await _roll_back(context, scope, error)
        raise
    _drop(context, scope)
    if context.ledger is not None:
        if is_part and (mark is None or mark is not scope.mark):
            _hand_over(context, scope)
        else:
            wanted = Outcome.COMMITTED if mark is None else Outcome.ROLLED_BACK
            context.ledger.settle_unit(scope, wanted)
        committed = mark is None and not is_part
        await tell_after(context, scope.name, committed=committed, result=result)


async def leave_with_error(context: Context, scope: Scope, error: BaseException) -> None:
    """Roll the block back as a whole; the caller raises ``error`` again."""
    _open_books(context)
    await _roll_back(context, scope, error)


async def _roll_back(context: Context, scope: Scope, error: BaseException) -> None:
    leaving = error
    other = other_user(context)
    if other is not None:  # a part of its work would stay, or come behind what is rolled back
        reason = f"task {other!r} was at work in it, and is not finished"
        attach(error, f"{reason}: {scope.name!r} and what is around it can't commit")
        context.doom_all(Mark(scope.name, reason, error, final=True, how="unfinished"))
    if isinstance(error, GeneratorExit):
        # Nothing can be awaited: the connection goes, and with it what the caller did on it.
        terminate_all(scope.name, list(scope.held))
        context.doom_all(Mark(scope.name, "its coroutine was closed", error))
    else:
        try:
            await roll_back_block(scope, left_by(error))
        except Exception as failure:  # noqa: BLE001 - the first error leaves
            attach(error, "cleaning up failed too", failure)
        except BaseException as failure:  # noqa: BLE001 - a cancellation, raised below
            leaving = failure
    _drop(context, scope)
    if context.ledger is not None:
        context.ledger.settle_unit(scope, Outcome.ROLLED_BACK)
        if not isinstance(error, GeneratorExit):
            await tell_beside(context, leaving)
    if leaving is not error:
        raise leaving


async def _cover(context: Context, scope: Scope, plans: list[tuple[Participant, Entry]]) -> None:
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


def _refuse_control(context: Context, scope: Scope, mode: Mode) -> None:
    if decide_entry(mode, Met.ATOMIC) is not Entry.REFUSE_CONTROL:
        return
    operation = f"current_transaction={str(mode.declared)!r}"
    if context.preparing:
        raise AtomicControlError(operation, context.name, in_hook=True)
    for outer in context.scopes:
        if outer.atomic and (not scope.only or any(map(outer.owns, scope.only))):
            raise AtomicControlError(operation, outer.name)


async def _plan(context: Context, scope: Scope, one: Participant, mode: Mode) -> Entry:
    entry = decide_entry(mode, _met(context, one))
    if entry is Entry.REFUSE_OPEN:
        raise OpenTransactionError(scope.name, one.database, "current_transaction='raise'")
    if entry in {Entry.COMMIT_IF_HARMLESS, Entry.COMMIT_FIRST}:
        refuse_broken(one)
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
    broken = next((mark for one in scope.held if (mark := one.broken_mark())), None)
    return broken or next((mark for one in scope.held if (mark := context.mark_on(one))), None)


async def _commit_block(context: Context, scope: Scope) -> None:
    await flush_all(scope.held)
    refuse_half(context, scope.name)
    context.check_limit()
    released: list[Participant] = []
    try:
        await release_all(context, scope, released)
        if scope.commits:
            own = [one for one in context.in_order_of_use() if scope.holds_whole(one)]
            await commit_all(scope.name, own, close=False)
    except BaseException as error:
        # What was released is a part of the enclosing unit now, and can't be undone alone.
        context.doom_around(scope, released, Mark(scope.name, in_words(error), error))
        raise


def _is_part(context: Context, scope: Scope) -> bool:
    """Whether the block's work is durable only with what encloses it."""
    if scope.held:
        return not scope.commits or any(scope.savepoint_of(one) for one in scope.held)
    return not scope.commits or any(one.atomic for one in context.scopes if one is not scope)


def _hand_over(context: Context, scope: Scope) -> None:
    """Let the hooks of the block wait for what encloses it; what it committed itself counts, too."""
    if context.ledger is not None:
        parts = [one.witnessed() for one in scope.held if one.in_transaction]
        parts += context.ledger.ended()
        context.ledger.hand_over(scope, context.innermost(scope.order), parts)


def _open_books(context: Context) -> None:
    """Note from here on what becomes of the transactions that end."""
    if context.ledger is not None:
        context.ledger.open_books()


def _drop(context: Context, scope: Scope) -> None:
    if scope in context.scopes:
        context.scopes.remove(scope)
