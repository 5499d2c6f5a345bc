"""The model's endings: COMMIT and ROLLBACK, by hand too, and the hooks that they settle."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.stateful.context import Context
from tests.stateful.sending import Sending
from tests.stateful.state import (
    COMMITTED,
    DATABASES,
    ROLLED_BACK,
    UNKNOWN,
    Frame,
    Hook,
    Problem,
    Transaction,
    common_fate,
)

_RUNS = {
    COMMITTED: {"after_commit", "after_completion"},
    ROLLED_BACK: {"after_rollback", "after_completion"},
    UNKNOWN: {"after_completion"},
}
Settled = list[tuple[Hook, str]]
"""Hooks whose moment has come, and what they are told."""


class Ending(Sending):
    """Ends transactions, and runs hooks before and after."""

    def commit(self, context: Context, databases: Iterable[int]) -> None:
        """Flush, then COMMIT in order of first use; a refusal rolls back what is left."""
        ordered = [db for db in context.in_order_of_use(databases) if db in context.open]
        for db in ordered:
            self.flush(context, db)
        transactions = sorted((context.open[db] for db in ordered), key=lambda one: not one.begun)
        committed = 0
        for place, one in enumerate(transactions):
            if one.in_debt:
                self.roll_back(context, [rest.db for rest in transactions[place:] if rest.begun])
                raise Problem("PartialCommitError" if committed else "IntegrityError")
            for layer in one.layers:
                self.rows[one.db].update(layer.rows)
            context.end(one, COMMITTED)
            committed += one.begun

    def roll_back(self, context: Context, databases: Iterable[int]) -> None:
        for db in databases:
            if db in context.open:
                context.end(context.open[db], ROLLED_BACK)

    def commit_by_hand(self, context: Context, databases: list[int]) -> None:
        ending = [context.open[db] for db in databases]
        self.run_before(
            context,
            lambda hook: hook.owner is context.root and hook.is_settled(ending),
            lambda: databases,
        )
        if marks := [mark for db in databases for mark in context.marks_on(db)]:
            raise Problem("UnexpectedRollbackError", causes=marks)
        try:
            self.commit(context, databases)
        except Problem:
            self.run_after(context, self.settled_by(context, ending), ROLLED_BACK)
            raise
        self.settle(context, ending, COMMITTED)

    def roll_back_by_hand(self, context: Context, databases: list[int]) -> None:
        ending = [context.open[db] for db in databases if db in context.open]
        self.roll_back(context, databases)
        for db in databases:
            context.mend(db)
        self.settle(context, ending, ROLLED_BACK)

    # Hooks

    def run_before(
        self,
        context: Context,
        is_due: Callable[[Hook], bool],
        databases: Callable[[], Iterable[int]],
    ) -> None:
        """Run before_commit hooks in rounds until none is due, a flush before each round.

        One that raises, and those behind it, are due again at the next commit.
        """
        hooks: list[Hook] | None = None
        while hooks is None or hooks:
            for db in context.in_order_of_use(databases()):
                self.flush(context, db)
            before = [hook for hook in context.hooks if hook.kind == "before_commit"]
            hooks = [hook for hook in before if is_due(hook)]
            for hook in hooks:
                self.log.append((hook.number, hook.kind, None))
                self.do_in_hook(context, hook)
                context.hooks.remove(hook)

    def do_in_hook(self, context: Context, hook: Hook) -> None:
        """Do what a before_commit hook does, in the context."""
        raise NotImplementedError

    def settle(self, context: Context, ended: list[Transaction], fate: str) -> None:
        """Run what an end by hand settles; of what used nothing, nobody is told."""
        used = [one for one in ended if one.used]
        settled = self.settled_by(context, used) if used else []
        if failed := self.run_after(context, settled, fate):
            raise failed

    def settled_by(self, context: Context, ended: list[Transaction]) -> Settled:
        """The context's own hooks that wait for nothing any more."""
        return [
            (hook, common_fate(hook.waits_for, common_fate(ended, UNKNOWN)))
            for hook in context.hooks
            if hook.owner is context.root and hook.is_settled()
        ]

    def run_after(
        self, context: Context, settled: Settled, fate: str, **told: int | str | None
    ) -> Problem | None:
        """Run the hooks that an end with this ``fate`` settles; say if any failed."""
        self.run_settled(context, settled)
        failed, context.unsaid = context.unsaid, []
        if not failed:
            return None
        if fate == COMMITTED:
            return Problem("AfterCommitError", hooks=failed, **told)  # type: ignore[arg-type]
        return Problem("ExceptionGroup", hooks=failed)

    def run_settled(self, context: Context, settled: Settled) -> None:
        for hook, outcome in sorted(settled, key=lambda one: context.hooks.index(one[0])):
            context.hooks.remove(hook)
            if hook.kind in _RUNS[outcome]:
                says = outcome if hook.kind == "after_completion" else None
                self.log.append((hook.number, hook.kind, says))
                self.do_after(hook)
                if hook.does == "raise" and not hook.robust:
                    context.unsaid.append(hook.number)

    def do_after(self, hook: Hook) -> None:
        """A hook writes in a transaction of its own; where SQLite's lock is held it refrains."""
        if hook.does == "write":
            if self.sqlite and any(hook.db in one.open for one in self.contexts):
                self.refrain.add(hook.number)
            else:
                self.rows[hook.db].add(hook.number)

    def hand_over(self, context: Context, frame: Frame, ended: Iterable[Transaction] = ()) -> None:
        """Give a released scope's hooks to what is around it now; they wait for its part of it.

        What it ended by itself is a part, too.
        """
        part = DATABASES if frame.kind == "savepoint" else tuple(frame.held)
        for hook in context.hooks:
            if hook.owner is frame:
                hook.owner = context.innermost()
                hook.waits_for |= {one for one in context.transactions if one.db in part}
                hook.waits_for |= set(ended)
