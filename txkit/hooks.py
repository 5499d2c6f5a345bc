"""before_commit, after_commit, after_rollback, after_completion: work that follows an end.

What a coroutine registers with the current unit. When it runs is kept in
``_core.hooks``. After Django's ``on_commit`` and Spring's
``TransactionSynchronization``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from txkit._core.hooks import Kind
from txkit._core.users import open_place
from txkit.policy.callables import refuse_uncallable

H = TypeVar("H", bound=Callable[[], Any])
C = TypeVar("C", bound=Callable[[Any], Any])

if TYPE_CHECKING:
    from collections.abc import Awaitable


def before_commit(function: H) -> H:
    """Run ``function`` inside the transaction, right before its COMMIT.

    It may send statements, add objects and register hooks, which run in the next
    round; each round is flushed. It is not run where the unit rolls back. An exception
    of it rolls the unit back and leaves.

    Args:
        function: sync or async, without arguments. Given back, so that it may be
            used as a decorator.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        TypeError: it can't be called so.
        RuntimeError: at the end: hooks have registered new ones a hundred times over;
            rolled back.
    """
    _register(Kind.BEFORE_COMMIT, function)
    return function


@overload
def after_commit(function: H, /, *, robust: bool = ...) -> H: ...
@overload
def after_commit(*, robust: bool = ...) -> Callable[[H], H]: ...
def after_commit(function: Any = None, /, *, robust: bool = False) -> Any:
    """Run ``function`` once the work that it belongs to is committed, and only then.

    It belongs to the innermost atomic block or savepoint that is open, else to the
    context's work: dropped when that is rolled back, handed on when it is released.
    After an early commit by hand it runs if nothing is open any more of what was
    open when it was registered. It runs before the call that commits returns, with
    no context, so that a decorated function in it has a transaction of its own, and
    with the connection back in the pool. All run, in order of registration.

    Args:
        function: sync or async, without arguments. Given back, so that it may be
            used as a decorator, also as ``@after_commit(robust=True)``.
        robust: log a failure instead of raising it.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        TypeError: it can't be called so.
        AfterCommitError: from the call that committed: hooks failed; the work *is*
            committed.

    Cancellation: a caller that is cancelled while it commits still runs them, for up
    to ``finish_timeout_s``.
    """
    if function is None:

        def decorate(given: Any) -> Any:
            _register(Kind.AFTER_COMMIT, given, robust=robust)
            return given

        return decorate
    _register(Kind.AFTER_COMMIT, function, robust=robust)
    return function


def after_rollback(function: H) -> H:
    """Run ``function`` once the work that it belongs to is rolled back.

    As ``after_commit``; what it raises is attached to the exception that leaves, or
    raised as an ExceptionGroup where the call would have returned.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        TypeError: it can't be called so.
    """
    _register(Kind.AFTER_ROLLBACK, function)
    return function


def after_completion(function: C) -> C:
    """Run ``function(outcome)`` once the work that it belongs to has ended, however.

    As ``after_commit``. The outcome is ``"committed"``, ``"rolled_back"``, or
    ``"unknown"``: several Databases ended differently, or COMMIT was not answered.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        TypeError: it can't be called so.
    """
    _register(Kind.AFTER_COMPLETION, function)
    return function


def _register(
    kind: Kind, function: Callable[..., Any | Awaitable[Any]], *, robust: bool = False
) -> None:
    context = open_place(kind.value).context
    refuse_uncallable(kind.value, function, 1 if kind is Kind.AFTER_COMPLETION else 0)
    context.hooks().register(
        kind, function, context.innermost(), context.witnesses(), robust=robust
    )
