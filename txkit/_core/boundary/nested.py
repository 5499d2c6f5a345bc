"""A ``nested`` call: savepoints on every open transaction, judged by its own rules.

It commits nothing: what it opened stays open for its boundary, what it did goes
if it fails. After Spring's ``PROPAGATION_NESTED``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txkit._core.boundary.atomic import leave_normally, leave_with_error
from txkit._core.notes import attach
from txkit._core.scope import Mark
from txkit.policy.outcome import error_commits, parts_of

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit._core.limit import Limit
    from txkit._core.scope import Scope
    from txkit.policy.definition import Definition


async def leave_nested(
    context: Context, scope: Scope, definition: Definition, result: Any = None
) -> None:
    """Release the savepoints, or roll back to them if the outcome rule says so.

    Raises:
        UnexpectedRollbackError: a joined function or a statement failed; rolled back.
        Exception: what ``outcome`` raised, or a release; rolled back.
    """
    try:
        fails = definition.outcome is not None and not definition.outcome(result, None)
    except BaseException as error:
        await leave_with_error(context, scope, error)
        raise
    if fails:
        scope.doom(Mark(scope.name, "its result says failure", own=True, how="asked"))
    await leave_normally(context, scope, result)


async def leave_nested_with_error(
    context: Context,
    scope: Scope,
    definition: Definition,
    error: BaseException,
    limit: Limit | None,
) -> None:
    """Roll back to the savepoints, or release them if the rules would commit."""
    if limit is None or error is not limit.error:
        try:
            if error_commits(definition, error, at_boundary=False):
                if _is_of(scope.mark, error):
                    scope.mark = None
                await leave_normally(context, scope)
                return
        except Exception as failure:  # noqa: BLE001 - the user's exception leaves
            attach(error, "it was rolled back although its rules would keep it", failure)
            if scope not in context.scopes:
                return
    await leave_with_error(context, scope, error)


def _is_of(mark: Mark | None, error: BaseException) -> bool:
    """Whether the mark was left by the error that the call's own rules judge now."""
    if mark is None or mark.own or mark.final:
        return False
    return any(mark.error is part for part in parts_of(error))
