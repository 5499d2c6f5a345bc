"""The ledger of hooks: what is to run before a commit, and after which outcome.

One list in order of registration. A hook belongs to the innermost unit that was
open (an atomic block, a savepoint, else the context) and is handed to the
enclosing one when that is released. One of the context's remembers which
transactions were open, and is due once none of them is: an early commit by hand
runs what followed it, and nothing else.

Must not run anything, nor know sessions: ``telling`` runs, ``participant`` reports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from txkit._core.scope import Savepoint, Scope

Function: TypeAlias = Callable[..., Any | Awaitable[Any]]


class Kind(Enum):
    """When a hook runs."""

    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    AFTER_ROLLBACK = "after_rollback"
    AFTER_COMPLETION = "after_completion"


class Outcome(StrEnum):
    """How a transaction, or the work of a unit, ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"


class Witness:
    """A transaction that hooks remember. No outcome once over: it had never sent anything."""

    __slots__ = ("is_open", "outcome")

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.is_open = outcome is None
        self.outcome = outcome


class Hook:
    """A function that waits for its moment. ``remembered`` are the transactions it waits for."""

    __slots__ = ("function", "kind", "order", "owner", "remembered", "robust")

    def __init__(
        self,
        kind: Kind,
        function: Function,
        order: int,
        owner: Scope | Savepoint,
        remembered: Iterable[Witness],
        *,
        robust: bool,
    ) -> None:
        self.kind = kind
        self.function = function
        self.order = order
        self.owner = owner
        self.remembered = list(remembered)
        self.robust = robust

    @property
    def has_witness(self) -> bool:
        """Whether it remembers a transaction that did something, or still may."""
        return any(one.is_open or one.outcome for one in self.remembered)

    def outcome(self, otherwise: Outcome) -> Outcome:
        """Combine what became of the transactions; ``otherwise`` where there were none."""
        return combined([one.outcome for one in self.remembered if one.outcome], otherwise)

    def runs_after(self, outcome: Outcome) -> bool:
        """Whether this is its moment."""
        return self.kind is Kind.AFTER_COMPLETION or (self.kind, outcome) in _MOMENTS


_MOMENTS = {
    (Kind.AFTER_COMMIT, Outcome.COMMITTED),
    (Kind.AFTER_ROLLBACK, Outcome.ROLLED_BACK),
}


class Ledger:
    """The hooks of one context. ``due`` are those whose moment has come, with the outcome."""

    def __init__(self, root: Scope) -> None:
        self._root = root
        self._hooks: list[Hook] = []
        self._count = 0
        self.due: list[tuple[Hook, Outcome]] = []
        self.failures: list[tuple[Outcome, Exception]] = []
        self._endings: list[Outcome] = []
        self._is_final = False

    def register(
        self,
        kind: Kind,
        function: Function,
        owner: Scope | Savepoint,
        remembered: Iterable[Witness],
        *,
        robust: bool,
    ) -> None:
        """Add a hook."""
        self._count += 1
        self._hooks.append(Hook(kind, function, self._count, owner, remembered, robust=robust))

    def hand_over(
        self, owner: Scope | Savepoint, to: Scope | Savepoint, parts: Iterable[Witness]
    ) -> None:
        """Let the enclosing unit own what a released one owned, and wait for all its parts."""
        more = list(parts)
        for hook in self._hooks:
            if hook.owner is owner:
                hook.owner = to
                hook.remembered += [one for one in more if one not in hook.remembered]

    def settle(self, owner: Scope | Savepoint, outcome: Outcome) -> None:
        """Make the hooks of a unit due: it has ended."""
        self._take([hook for hook in self._hooks if hook.owner is owner], lambda _: outcome)

    def open_books(self, *, is_final: bool = False) -> None:
        """Note what becomes of the transactions that end from here on."""
        if not self._is_final:
            self._endings = []
            self._is_final = is_final

    def ended(self) -> list[Witness]:
        """Give the transactions that have ended since the books were opened."""
        return [Witness(outcome) for outcome in self._endings]

    def settle_unit(self, owner: Scope, otherwise: Outcome) -> None:
        """Make the hooks of a block due, by what became of its transactions."""
        self.settle(owner, combined(self._endings, otherwise))

    def transaction_ended(
        self, witness: Witness | None, outcome: Outcome, *, was_used: bool, by_hand: bool
    ) -> None:
        """Note that a Database's transaction is over; ``by_hand``: not by what owns it."""
        if witness is not None:
            witness.is_open = False
            witness.outcome = outcome if was_used else None
        if not was_used:
            return
        self._endings.append(outcome)
        if self._is_final:
            return
        ready = [
            hook
            for hook in self._hooks
            if hook.owner is self._root
            and (witness in hook.remembered or (by_hand and not hook.has_witness))
            and not any(one.is_open for one in hook.remembered)
        ]
        self._take(ready, lambda hook: hook.outcome(outcome))

    def end(self, otherwise: Outcome) -> None:
        """Make all that is left due: the boundary has ended."""
        self.open_books(is_final=True)  # it may have had nothing to end
        together = combined(self._endings, otherwise)
        differs = together is Outcome.UNKNOWN
        self._take(self._hooks[:], lambda hook: together if differs else hook.outcome(together))

    def take_before(
        self,
        owner: Scope,
        ending: Iterable[Witness | None] | None,
        *,
        by_hand: bool,
        inside: Container[object] = (),
    ) -> list[Hook]:
        """Take the ``before_commit`` hooks that a commit would settle.

        ``ending`` are the transactions that it ends; None: all that are open. ``inside``
        are the savepoints that it releases.
        """
        chosen = [
            hook
            for hook in self._hooks
            if hook.kind is Kind.BEFORE_COMMIT
            and (hook.owner in inside or self._is_settled(hook, owner, ending, by_hand=by_hand))
        ]
        self._hooks = [hook for hook in self._hooks if hook not in chosen]
        return chosen

    def give_back(self, hooks: Iterable[Hook]) -> None:
        """Put hooks back in their places: the commit that they were taken for does not come."""
        self._hooks = sorted([*self._hooks, *hooks], key=lambda hook: hook.order)

    def take_due(self) -> list[tuple[Hook, Outcome]]:
        """Take what is due now, in order of registration."""
        due = sorted(self.due, key=lambda one: one[0].order)
        self.due = []
        return [(hook, outcome) for hook, outcome in due if hook.runs_after(outcome)]

    def drop(self) -> int:
        """Forget everything; give the number of hooks that will never run."""
        dropped = len(self._hooks) + len(self.due)
        self._hooks, self.due = [], []
        return dropped

    def _is_settled(
        self, hook: Hook, owner: Scope, ending: Iterable[Witness | None] | None, *, by_hand: bool
    ) -> bool:
        if hook.owner is owner and (ending is None or owner is not self._root):
            return True
        if hook.owner is not self._root or ending is None:
            return False
        still_open = [one for one in hook.remembered if one.is_open]
        return all(one in ending for one in still_open) if still_open else by_hand

    def _take(self, hooks: list[Hook], judge: Callable[[Hook], Outcome]) -> None:
        self._hooks = [hook for hook in self._hooks if hook not in hooks]
        self.due += [(hook, judge(hook)) for hook in hooks]


def combined(outcomes: list[Outcome], otherwise: Outcome) -> Outcome:
    """Give the one outcome that all had, ``unknown`` if they differ."""
    different = set(outcomes)
    if len(different) > 1:
        return Outcome.UNKNOWN
    return different.pop() if different else otherwise
