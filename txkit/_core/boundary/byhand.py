"""End a transaction of the context by hand, with the hooks that follow it.

What ``commit_db_session`` and its like ask for, and an atomic block that commits
or rolls back what was open before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.boundary.ending import commit_all, rollback_all
from txkit._core.permission import refuse_broken
from txkit._core.telling import prepare, tell_after, tell_beside
from txkit._core.users import refuse_half

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txkit._core.context import Context
    from txkit._core.participant import Participant


async def commit_by_hand(context: Context, name: str, ones: Sequence[Participant]) -> None:
    """Commit these participants now; their sessions stay.

    Raises:
        UnexpectedRollbackError: a ``before_commit`` hook broke the transaction.
        TransactionTimeoutError: it is over its time; nothing was committed.
        AfterCommitError: committed, and hooks failed.
        Exception: a hook, the flush or the commit failed.
    """
    await prepare(context, context.root, lambda: ones, by_hand=True)
    for one in ones:
        refuse_broken(one)
    refuse_half(context, name)
    context.check_limit()
    try:
        await commit_all(name, ones, close=False)
    except BaseException as error:
        await tell_beside(context, error)
        raise
    await tell_after(context, name, committed=True)


async def rollback_by_hand(
    context: Context, name: str, ones: Sequence[Participant], reason: str, *, close: bool
) -> None:
    """Roll these participants back now: that mends what could only be rolled back.

    Raises:
        ExceptionGroup: hooks failed.
        Exception: the rollback failed; the connection was discarded.
    """
    try:
        await rollback_all(name, ones, reason, close=close)
    except BaseException as error:
        await tell_beside(context, error)
        raise
    finally:
        for one in ones:
            context.rolled_back(one.database, by_hand=True)
    await tell_after(context, name, committed=False)
