"""Commit or rollback: the rule that judges how a unit ended.

An explicit class rule comes first (the nearest class on the exception's MRO
decides), then the HTTP meaning of what left the boundary, then the default: a
return commits, an exception rolls back. Cancellation and its like never
commit. After Spring's rollback rules and the seed's middleware, which looked
at the status of the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from txkit.policy.definition import Definition, may_commit
from txkit.policy.http import error_status, is_response, response_status
from txkit.policy.views import find_answer

Injected: TypeAlias = Sequence[tuple[object, int | None]]
"""Response objects among the arguments, with the status they had at the start."""

_FIRST_FAILURE = 400


def error_commits(
    definition: Definition, error: BaseException, injected: Injected = (), *, at_boundary: bool
) -> bool:
    """Say whether a unit that ``error`` leaves is to be committed.

    At the boundary an HTTP exception that is an answer (a redirect) commits;
    a joined call knows only its exception rules. Raises what ``outcome`` raises.
    """
    leaves = _leaves(error)
    if not all(may_commit(type(leaf)) for leaf in leaves):
        return False
    if definition.outcome is not None:
        return bool(definition.outcome(None, error))
    return all(
        _leaf_commits(definition, leaf, injected, at_boundary=at_boundary) for leaf in leaves
    )


def result_commits(definition: Definition, result: object, injected: Injected = ()) -> bool:
    """Say whether a boundary that returned ``result`` is to be committed.

    Raises what ``outcome`` raises.
    """
    if definition.outcome is not None:
        return bool(definition.outcome(result, None))
    if result is not None and _failed(response_status(result)):
        return False
    return not injected or not _turned_to_failure(injected)


def find_injected(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Injected:
    """Find the response objects among the arguments, each with its status now."""
    if not args and not kwargs:
        return ()
    return [
        (value, response_status(value)) for value in (*args, *kwargs.values()) if is_response(value)
    ]


def read_tuple(injected: Injected, function: object, result: Any) -> Injected:
    """Add the answer that a tuple is where a framework takes it for one."""
    answer = find_answer(function, result) if issubclass(type(result), tuple) else None
    return injected if answer is None else [*injected, (answer, None)]


def _failed(status: int | None) -> bool:
    return status is not None and status >= _FIRST_FAILURE


def _turned_to_failure(injected: Injected) -> bool:
    for response, before in injected:
        status = response_status(response)
        if status != before and _failed(status):
            return True
    return False


def parts_of(error: BaseException) -> list[BaseException]:
    """Give an exception and, of a group, everything in it."""
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if isinstance(error, BaseExceptionGroup):
        return [error, *(inner for part in parts for inner in parts_of(part))]
    return [error]


def _leaves(error: BaseException) -> list[BaseException]:
    return [part for part in parts_of(error) if not isinstance(part, BaseExceptionGroup)]


def _leaf_commits(
    definition: Definition, leaf: BaseException, injected: Injected, *, at_boundary: bool
) -> bool:
    for cls in type(leaf).__mro__:
        if cls in definition.rollback_for:
            return False
        if cls in definition.no_rollback_for:
            return True
    if not at_boundary:
        return False
    status = error_status(leaf)
    return status is not None and not _failed(status) and not _turned_to_failure(injected)
