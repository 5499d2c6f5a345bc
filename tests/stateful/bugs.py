"""Deliberate bugs: each is switched on alone, and the machine must find it.

A machine that finds nothing proves something only if it finds these. Each is told by what a user
would suffer from it, and done where a careless change could do it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from txkit._core import place
from txkit._core.boundary import joining, operations
from txkit._core.context import Context
from txkit._core.hooks import Ledger, Outcome
from txkit._core.participant import Participant
from txkit._core.scope import Mark, Scope

Switch = Callable[[pytest.MonkeyPatch], None]


class Bug(NamedTuple):
    name: str
    suffered: str
    switch_on: Switch


BUGS: list[Bug] = []


def bug(switch: Switch) -> Switch:
    """List a bug; its docstring says what a user suffers."""
    BUGS.append(Bug(switch.__name__, str(switch.__doc__), switch))
    return switch


def everywhere(patch: pytest.MonkeyPatch, good: Any, bad: Any) -> None:
    """Replace a function in every module of txkit that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "txkit":
            for attribute, value in list(vars(module).items()):
                if value is good:
                    patch.setattr(module, attribute, bad)


@bug
def savepoint_is_released_where_it_should_be_rolled_back(patch: pytest.MonkeyPatch) -> None:
    """What a failed part wrote is committed with the rest."""
    patch.setattr(operations, "rollback_to_savepoint", operations.release_savepoint)


@bug
def swallowed_failure_of_a_joined_call_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Half of an order is committed: the half before its service failed."""
    everywhere(patch, joining.joined_failed, lambda *_, **__: None)


@bug
def swallowed_database_error_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """SQLite commits the statements around the one that failed."""
    patch.setattr(Participant, "failed", lambda *_, **__: None)


@bug
def hooks_of_a_block_that_was_rolled_back_run(patch: pytest.MonkeyPatch) -> None:
    """A mail goes out for an order that does not exist."""
    settle = Ledger.settle_unit
    patch.setattr(
        Ledger, "settle_unit", lambda self, owner, _: settle(self, owner, Outcome.COMMITTED)
    )


@bug
def early_commit_loses_the_hooks_that_waited(patch: pytest.MonkeyPatch) -> None:
    """A worker commits after every batch, and nobody hears of any but the last one."""
    ended = Ledger.transaction_ended

    def lose(self: Ledger, *arguments: Any, by_hand: bool, **options: Any) -> None:
        ended(self, *arguments, by_hand=by_hand, **options)
        if by_hand:
            self.due.clear()

    patch.setattr(Ledger, "transaction_ended", lose)


@bug
def only_the_first_hook_is_handed_over(patch: pytest.MonkeyPatch) -> None:
    """A part that succeeded in the unit is announced in part."""
    hand_over = Ledger.hand_over

    def lose(self: Ledger, owner: Any, *arguments: Any) -> None:
        for hook in [one for one in self._hooks if one.owner is owner][1:]:
            self._hooks.remove(hook)
        hand_over(self, owner, *arguments)

    patch.setattr(Ledger, "hand_over", lose)


@bug
def before_commit_has_one_round(patch: pytest.MonkeyPatch) -> None:
    """What a hook asked for in its turn, the outbox for one, is not written."""
    take = Ledger.take_before
    busy: list[Ledger] = []

    def first_round(self: Ledger, *arguments: Any, **options: Any) -> list[Any]:
        hooks = take(self, *arguments, **options)
        if self in busy:  # it was asked again, after a round that found something
            busy.remove(self)
            return []
        busy.extend([self] if hooks else [])
        return hooks

    patch.setattr(Ledger, "take_before", first_round)


@bug
def suspended_context_does_not_come_back(patch: pytest.MonkeyPatch) -> None:
    """After a call with requires_new the caller's next statement finds no session."""
    good = place.go_back

    def forget(mine: place.Place) -> None:
        good(mine)
        if mine.before is not None and mine.before.context is not mine.context:
            place.install(None)

    everywhere(patch, good, forget)


@bug
def rollback_by_hand_mends_the_other_database_too(patch: pytest.MonkeyPatch) -> None:
    """The half of a failed job that lies in the other Database is committed."""
    good = Context.rolled_back

    def mend_all(self: Context, _: Any, *, by_hand: bool) -> None:
        for database in list(self.participants):
            good(self, database, by_hand=by_hand)

    patch.setattr(Context, "rolled_back", mend_all)


@bug
def nested_commits_what_it_opened(patch: pytest.MonkeyPatch) -> None:
    """The caller fails afterwards, and the nested part stays."""
    good = Scope.__init__

    def commits(self: Scope, *arguments: Any, **options: Any) -> None:
        good(self, *arguments, **{**options, "commits": True})

    patch.setattr(Scope, "__init__", commits)


@bug
def request_of_a_joined_call_ends_normally(patch: pytest.MonkeyPatch) -> None:
    """A service gives the unit up, and its caller reports success."""
    good = Context.doom

    def own(self: Context, mark: Mark, **options: Any) -> None:
        mark.own = mark.own or mark.error is None
        good(self, mark, **options)

    patch.setattr(Context, "doom", own)


@bug
def half_committed_unit_is_told_committed(patch: pytest.MonkeyPatch) -> None:
    """One Database refused its commit, and the customer is told that all went well."""
    good = Ledger.end

    def end(self: Ledger, otherwise: Outcome) -> None:
        self._endings = self._endings[:1]
        good(self, otherwise)

    patch.setattr(Ledger, "end", end)
