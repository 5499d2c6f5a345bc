"""Join a context that is there: nothing is begun or ended.

What a joined call does to its caller's unit is only this: it is named while it
runs (for ``set_rollback_only``), and if an exception leaves it that its own
rules would roll back for, what it belonged to may only be rolled back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.boundary.notes import attach, in_words
from txkit._core.context import open_place
from txkit._core.scope import Mark
from txkit.policy.outcome import error_commits

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit.policy.definition import Definition


def joined_failed(
    context: Context, definition: Definition, name: str, error: BaseException, *, since: int
) -> None:
    """Mark what ``name`` joined, if its rules would roll back for ``error``."""
    try:
        if error_commits(definition, error, at_boundary=False):
            return
    except Exception as failure:  # noqa: BLE001 - the user's exception leaves
        attach(error, "the outcome rule raised", failure)
    context.doom(Mark(name, in_words(error), error), since=since)


def ask_for_rollback(reason: str | None) -> None:
    """Mark the running unit on behalf of the nearest decorated function or block."""
    place = open_place("set_rollback_only")
    context = place.context
    words = reason or "set_rollback_only() was called"
    if place.caller is None:
        scope = context.scopes[-1]
        context.doom_scope(scope, Mark(scope.name, words, own=True))
    else:
        context.doom(Mark(place.caller, words), since=context.clock)
