"""Enter a boundary, whatever its face: what it opened, joined or covers, and how it is left.

The decision of ``policy.propagation`` is carried out here, for functions, ``async with``
blocks and async generators alike: each keeps what it entered until it leaves it. (A
function that opens a context, or joins one without options, has a shorter way.)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from txkit._core.boundary.atomic import (
    enter_block,
    enter_nested,
    leave_normally,
    leave_with_error,
)
from txkit._core.boundary.joining import joined_failed, refuse_incompatible
from txkit._core.boundary.nested import leave_nested, leave_nested_with_error
from txkit._core.boundary.unit import end_context, end_normally, end_with_error, new_context
from txkit._core.context import State
from txkit._core.limit import Limit
from txkit._core.notes import LeftEarly
from txkit._core.place import Place, go_back, running_context, surroundings
from txkit._core.scope import Scope, unfinished
from txkit._core.turn import current_task_or_none
from txkit._core.users import joinable_context, latest_user, use
from txkit._core.waiting import suspended_on
from txkit.errors import TransactionNotAllowedError, TransactionRequiredError
from txkit.policy.characteristics import AUTOCOMMIT, PLAIN
from txkit.policy.definition import Definition
from txkit.policy.propagation import INSIDE, Decision, Surroundings, decide

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit.policy.characteristics import Characteristics
    from txkit.policy.current_transaction import Mode
    from txkit.policy.outcome import Injected

log = logging.getLogger("txkit")

_PLAIN = Definition()


class Opened:
    """An entry that opened its context."""

    def __init__(
        self, definition: Definition, limit: Limit | None = None, injected: Injected = ()
    ) -> None:
        self._definition = definition
        self._injected = injected
        self.limit = limit

    async def leave(self, place: Place, error: BaseException | None, result: object = None) -> None:
        """End the context."""
        try:
            if error is None:
                await end_normally(place.context, self._definition, result, self._injected)
            else:
                await end_with_error(place.context, self._definition, error, self._injected)
        finally:
            end_context(place)


class Joined:
    """An entry that joined the context that was there."""

    def __init__(
        self, definition: Definition, context: Context, name: str, limit: Limit | None
    ) -> None:
        self._definition = definition
        self._name = name
        self._since = context.clock
        self.limit = limit

    async def leave(
        self, place: Place, error: BaseException | None, _result: object = None
    ) -> None:
        """Mark the unit if the block failed."""
        context = place.context
        go_back(place)
        if error is not None:
            name, since, limit = self._name, self._since, self.limit
            joined_failed(context, self._definition, name, error, since=since, limit=limit)


class Covered:
    """An atomic block inside a context, or a ``nested`` one."""

    def __init__(
        self, scope: Scope, definition: Definition | None = None, limit: Limit | None = None
    ) -> None:
        self.scope = scope
        self._definition = definition
        self.limit = limit

    async def leave(self, place: Place, error: BaseException | None, result: object = None) -> None:
        """Commit the block or roll it back."""
        context, scope, definition = place.context, self.scope, self._definition
        inner = context.scopes[-1]
        if inner is not scope and scope in context.scopes:  # streams that end in another order
            context.doom_all(unfinished(inner.name))
        try:
            if definition is None:
                if error is None:
                    await leave_normally(context, scope, result)
                else:
                    await leave_with_error(context, scope, error)
            elif error is None:
                await leave_nested(context, scope, definition, result)
            else:
                await leave_nested_with_error(context, scope, definition, error, self.limit)
        finally:
            go_back(place)


Entry: TypeAlias = Opened | Joined | Covered


async def leave_early(entry: Entry, place: Place) -> None:
    """Leave what a generator entered that its consumer gave up: where it joined, nothing ends."""
    context = place.context
    is_gone = context.state is not State.OPEN and not isinstance(entry, Opened)
    if isinstance(entry, Joined) or is_gone:
        go_back(place)
        return
    left = LeftEarly()
    await entry.leave(place, left)
    for note in getattr(left, "__notes__", ()):
        log.warning("%s: left early: %s", context.name, note)


def doom_left(entry: Entry, context: Context) -> None:
    """Let a block roll back with what is around it: who closes it must not touch the session."""
    if isinstance(entry, Covered) and context.state is State.OPEN:
        context.doom_scope(entry.scope, unfinished(entry.scope.name))


def is_in_other_hands(entry: Entry, context: Context) -> bool:
    """Whether another task uses the context, which this entry has not opened for itself."""
    if isinstance(entry, Opened):
        return False
    user, task = latest_user(context).task, current_task_or_none()
    return (
        user is not None and user is not task and (task is None or user not in suspended_on({task}))
    )


class Entered(NamedTuple):
    """What an entry came to. ``asked`` is what a joined one wants checked while it runs."""

    entry: Entry
    context: Context
    caller: str | None = None
    asked: tuple[str, Characteristics] | None = None


def decided(definition: Definition, name: str) -> tuple[Decision, Context | None]:
    """Look up what a call does about the context that is open, or refuse it.

    Raises:
        TransactionRequiredError, TransactionNotAllowedError: nothing is marked.
    """
    joins = decide(definition.propagation, Surroundings.TRANSACTION) in INSIDE
    context = joinable_context(name) if joins else running_context()
    decision = decide(definition.propagation, surroundings(context))
    if decision is Decision.REFUSE_WITHOUT:
        raise TransactionRequiredError(name)
    if decision is Decision.REFUSE_WITHIN and context is not None:
        raise TransactionNotAllowedError(name, context.name)
    return decision, context


async def enter_unit(definition: Definition, name: str, injected: Injected = ()) -> Entered:
    """Enter what ``transactional`` and ``new_context`` stand for.

    Raises:
        TransactionRequiredError, TransactionNotAllowedError, IncompatibleTransactionError,
            ConcurrentSessionUseError: nothing is marked.
    """
    decision, context = decided(definition, name)
    if context is not None and decision in INSIDE:
        return await enter_inside(context, decision, definition, name)
    asked = AUTOCOMMIT if decision is Decision.AUTOCOMMIT else definition.characteristics
    context = new_context(Scope(name, atomic=False), definition, asked)
    return Entered(Opened(definition, context.limit, injected), context)


async def enter_inside(
    context: Context, decision: Decision, definition: Definition, name: str
) -> Entered:
    """Join an open context, or set savepoints on what is open in it.

    Raises:
        IncompatibleTransactionError, ConcurrentSessionUseError: nothing is marked.
    """
    use(context, name)
    await refuse_incompatible(context, definition.characteristics, name)
    limit = None if definition.timeout_s is None else Limit(name, definition.timeout_s)
    asked = (name, definition.characteristics)
    if decision is Decision.JOIN:
        return Entered(Joined(definition, context, name, limit), context, name, asked)
    scope = Scope(name, atomic=True, commits=False)
    await enter_nested(context, scope)
    return Entered(Covered(scope, definition, limit), context, None, asked)


async def enter_atomic(scope: Scope, mode: Mode, injected: Injected = ()) -> Entered:
    """Enter what ``atomic`` stands for.

    Raises:
        OpenTransactionError, AtomicControlError, ConcurrentSessionUseError: nothing is marked.
    """
    context = joinable_context(scope.name)
    if context is None or context.autocommit:
        return Entered(Opened(_PLAIN, None, injected), new_context(scope, _PLAIN, PLAIN))
    use(context, scope.name)
    await enter_block(context, scope, mode)
    return Entered(Covered(scope), context)
