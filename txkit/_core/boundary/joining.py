"""Join a context that is there: nothing is begun or ended.

What a joined call does to its caller's unit is only this: it is named while it
runs (for ``set_rollback_only``), and if an exception leaves it that its own
rules would roll back for, the unit may only be rolled back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.context import open_context
from txkit.policy.outcome import error_commits

if TYPE_CHECKING:
    from txkit._core.context import Scope
    from txkit.policy.definition import Definition


def joined_failed(scope: Scope, definition: Definition, name: str, error: BaseException) -> None:
    """Mark the unit that ``name`` joined, if its rules would roll back for ``error``."""
    try:
        if error_commits(definition, error, at_boundary=False):
            return
    except Exception as failure:  # noqa: BLE001 - the user's exception leaves
        error.add_note(f"txkit: the outcome rule raised: {type(failure).__name__}: {failure}")
    scope.doom(name, error, f"{type(error).__name__}: {error}")


def ask_for_rollback(reason: str | None) -> None:
    """Mark the running unit on behalf of the nearest decorated function or block."""
    scope = open_context("set_rollback_only").scopes[-1]
    words = reason or "set_rollback_only() was called"
    if scope.caller is None:
        scope.asked = words
    else:
        scope.doom(scope.caller, None, words)
