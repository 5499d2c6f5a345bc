"""Join a context that is there: nothing is begun or ended.

What a joined call does to its caller's unit is only this: it is named while it
runs (for ``set_rollback_only``), and if an exception leaves it that its own
rules would roll back for, what it belonged to may only be rolled back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.notes import attach, in_words
from txkit._core.routing import isolation_of, only_reads
from txkit._core.scope import Mark
from txkit._core.users import open_place
from txkit.errors import (
    IncompatibleTransactionError,
    TransactionRequiredError,
    UnexpectedRollbackError,
)
from txkit.policy.characteristics import Characteristics, Conflict, conflict, level_conflict
from txkit.policy.outcome import error_commits

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit._core.limit import Limit
    from txkit._core.participant import Participant
    from txkit.policy.definition import Definition


def joined_failed(
    context: Context,
    definition: Definition,
    name: str,
    error: BaseException,
    *,
    since: int,
    limit: Limit | None = None,
) -> None:
    """Mark what ``name`` joined, if its rules would roll back for ``error``."""
    if context.autocommit:
        return
    is_late = limit is not None and error is limit.error  # no rule commits what ran out of time
    try:
        if not is_late and error_commits(definition, error, at_boundary=False):
            return
    except Exception as failure:  # noqa: BLE001 - the user's exception leaves
        attach(error, "the outcome rule raised", failure)
    if isinstance(error, UnexpectedRollbackError) and not error.ended:
        # It was refused because of what had failed before, and that stays the culprit.
        mark = Mark(error.culprit, error.reason, error.__cause__ or error, how=error.how)
    else:
        mark = Mark(name, in_words(error), error, final=is_late)
    context.doom(mark, since=since)


def ask_for_rollback(reason: str | None) -> None:
    """Mark the running unit on behalf of the nearest decorated function or block.

    Raises:
        TransactionRequiredError: in autocommit nothing can be rolled back.
    """
    place = open_place("set_rollback_only")
    context = place.context
    if context.autocommit:
        function = "set_rollback_only"
        raise TransactionRequiredError(function, in_autocommit=True)
    words = reason or "set_rollback_only() was called"
    if place.caller is None:
        scope = context.scopes[-1]
        context.doom_scope(scope, Mark(scope.name, words, own=True, how="asked"))
    else:
        context.doom(Mark(place.caller, words, how="asked"), since=context.clock)


async def refuse_incompatible(context: Context, asked: Characteristics, name: str) -> None:
    """Refuse to join what can't honour the options of the call.

    Raises:
        IncompatibleTransactionError: the boundary declared otherwise, or the engine's
            isolation level is another one.
    """
    found = conflict(asked, context.characteristics)
    if found is not None:
        raise _incompatible(name, context, found)
    for one in context.in_order_of_use():
        await refuse_engine(one, asked, name)


async def refuse_engine(one: Participant, asked: Characteristics, name: str) -> None:
    """Compare what is asked for with what the engine gives, where the boundary declared nothing.

    Sends:
        BEGIN of the transaction, if the engine has never connected: only then its
        server's default is known.
    """
    context = one.context
    if context is None:
        return
    if asked.read_only is False and context.characteristics.read_only is None and only_reads(one):
        raise _incompatible(name, context, Conflict("read_only", asked=False, found=True))
    if asked.isolation is None or context.characteristics.isolation is not None:
        return
    level = isolation_of(one)
    if level is None:
        await one.session.connection()
        level = isolation_of(one)
    found = level_conflict(asked, str(level))
    if found is not None:
        raise _incompatible(name, context, found)


def _incompatible(name: str, context: Context, found: Conflict) -> IncompatibleTransactionError:
    return IncompatibleTransactionError(
        name, context.name, found.option, asked=found.asked, found=found.found
    )
