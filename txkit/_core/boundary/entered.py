"""Enter a boundary, whatever its face: what it opened, joined or covers, and how it is left.

The decision of ``policy.propagation`` is carried out here for ``async with`` blocks and
for decorated async generators, which keep what they entered until they leave it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from txkit._core.boundary.atomic import (
    enter_block,
    enter_nested,
    leave_normally,
    leave_with_error,
)
from txkit._core.boundary.entries import decided
from txkit._core.boundary.joining import joined_failed, refuse_incompatible
from txkit._core.boundary.nested import leave_nested, leave_nested_with_error
from txkit._core.boundary.unit import end_context, end_normally, end_with_error, new_context
from txkit._core.limit import Limit
from txkit._core.place import Place, go_back, running_context
from txkit._core.scope import Scope
from txkit._core.users import use
from txkit.policy.characteristics import AUTOCOMMIT, PLAIN
from txkit.policy.definition import Definition
from txkit.policy.propagation import Decision

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit.policy.characteristics import Characteristics
    from txkit.policy.current_transaction import Mode
    from txkit.policy.outcome import Injected

_PLAIN = Definition()


class Opened:
    """An entry that opened its context."""

    def __init__(
        self, definition: Definition, limit: Limit | None = None, injected: Injected = ()
    ) -> None:
        self._definition = definition
        self._injected = injected
        self.limit = limit

    async def leave(self, place: Place, error: BaseException | None) -> None:
        """End the context."""
        try:
            if error is None:
                await end_normally(place.context, self._definition, None, self._injected)
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

    async def leave(self, place: Place, error: BaseException | None) -> None:
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

    async def leave(self, place: Place, error: BaseException | None) -> None:
        """Commit the block or roll it back."""
        context, scope, definition = place.context, self.scope, self._definition
        try:
            if definition is None:
                if error is None:
                    await leave_normally(context, scope)
                else:
                    await leave_with_error(context, scope, error)
            elif error is None:
                await leave_nested(context, scope, definition)
            else:
                await leave_nested_with_error(context, scope, definition, error, self.limit)
        finally:
            go_back(place)


Entry: TypeAlias = Opened | Joined | Covered


class Entered(NamedTuple):
    """What an entry came to. ``asked`` is what a joined one wants checked while it runs."""

    entry: Entry
    context: Context
    caller: str | None = None
    asked: tuple[str, Characteristics] | None = None


async def enter_unit(definition: Definition, name: str, injected: Injected = ()) -> Entered:
    """Enter what ``transactional`` and ``new_context`` stand for.

    Raises:
        TransactionRequiredError, TransactionNotAllowedError, IncompatibleTransactionError,
            ConcurrentSessionUseError: nothing is marked.
    """
    decision, context = decided(definition, name)
    if context is None or decision not in {Decision.JOIN, Decision.SAVEPOINT}:
        asked = AUTOCOMMIT if decision is Decision.AUTOCOMMIT else definition.characteristics
        context = new_context(Scope(name, atomic=False), definition, asked)
        return Entered(Opened(definition, context.limit, injected), context)
    use(context, name)
    await refuse_incompatible(context, definition.characteristics, name)
    limit = None if definition.timeout_s is None else Limit(name, definition.timeout_s)
    wants = (name, definition.characteristics)
    if decision is Decision.JOIN:
        return Entered(Joined(definition, context, name, limit), context, name, wants)
    scope = Scope(name, atomic=True, commits=False)
    await enter_nested(context, scope)
    return Entered(Covered(scope, definition, limit), context, None, wants)


async def enter_atomic(scope: Scope, mode: Mode, injected: Injected = ()) -> Entered:
    """Enter what ``atomic`` stands for.

    Raises:
        OpenTransactionError, AtomicControlError, ConcurrentSessionUseError: nothing is marked.
    """
    context = running_context()
    if context is None or context.autocommit:
        return Entered(Opened(_PLAIN, None, injected), new_context(scope, _PLAIN, PLAIN))
    use(context, scope.name)
    await enter_block(context, scope, mode)
    return Entered(Covered(scope), context)
