"""Release a block's savepoints, or roll the block back: what it holds, as a whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from txkit._core.boundary import operations
from txkit._core.boundary.ending import each, log_rollback, rollback_all, to_the_end

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit._core.participant import Participant
    from txkit._core.scope import Scope


async def release_all(
    context: Context, scope: Scope, released: list[Participant] | None = None
) -> None:
    """Release the block's savepoints; what it holds afterwards are its own transactions."""
    for one in context.in_order_of_use():
        savepoint = scope.savepoint_of(one)
        if savepoint is not None:
            await operations.release_savepoint(one, savepoint)
            del scope.held[one]
            if released is not None:
                released.append(one)


async def roll_back_block(scope: Scope, reason: str) -> None:
    """Roll back to the block's savepoints, and its own transactions.

    Raises:
        Exception: what failed first; all were tried, what failed was discarded.
    """
    savepoints = [(one, point) for one, point in scope.held.items() if point is not None]
    own = [one for one, point in scope.held.items() if point is None]
    try:
        if savepoints:
            log_rollback(scope.name, f"to its savepoint: {reason}")
            work = each(partial(operations.rollback_to_savepoint, *held) for held in savepoints)
            await to_the_end([one for one, _ in savepoints], work)
    finally:
        await rollback_all(scope.name, own, reason, close=False)
