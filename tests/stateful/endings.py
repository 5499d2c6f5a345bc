"""The model's endings: flush, COMMIT and ROLLBACK, and the hooks that they settle.

An independent re-statement of docs' "Commit or rollback" and "Hooks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.stateful.state import (
    COMMITTED,
    DATABASES,
    OPEN,
    ROLLED_BACK,
    UNKNOWN,
    Context,
    Frame,
    Hook,
    Layer,
    Problem,
    Transaction,
)

_RUNS = {
    COMMITTED: {"after_commit", "after_completion"},
    ROLLED_BACK: {"after_rollback", "after_completion"},
    UNKNOWN: {"after_completion"},
}


class Endings:
    """Committed rows, hooks that ran, and the frames that are open, outermost first."""

    def __init__(self, *, sqlite: bool) -> None:
        self.sqlite = sqlite
        self.rows: tuple[set[int], ...] = tuple(set() for _ in DATABASES)
        self.log: list[tuple[int, str, str | None]] = []
        self.refrain: set[int] = set()
        self.contexts: list[Context] = []

    # Statements

    def send(self, context: Context, db: int, *, reads: bool = False) -> Transaction:
        """Send a statement of the user's, pending objects first."""
        self.enlist(context, db)
        self.flush(context, db, by_user=True)
        return self.send_one(context, db, reads=reads)

    def send_one(
        self, context: Context, db: int, *, by_user: bool = True, reads: bool = False
    ) -> Transaction:
        """Send a statement, or say why it is refused."""
        marks = context.marks_on(db)
        if marks and marks[0].error and (by_user or marks[0].is_broken):
            raise Problem("UnexpectedRollbackError", causes=marks)
        for frame in context.frames:
            frame.touched.add(db)
        has_lock = db in context.open and context.open[db].begun and not context.autocommit
        may_read = reads and context.autocommit
        if not has_lock and not may_read and self.starves(context, db):
            raise Problem("PoolStarvationError", function=context.root.name)
        transaction = context.transaction(db)
        transaction.begun = True
        if db not in context.used:
            context.used.append(db)
        return transaction

    def starves(self, context: Context | None, db: int) -> bool:
        """SQLite: whether a suspended caller holds the write lock."""
        outer = context.outer if context else None
        while self.sqlite and outer is not None:
            if not outer.autocommit and db in outer.open and outer.open[db].begun:
                return True
            outer = outer.outer
        return False

    def flush(self, context: Context, db: int, *, by_user: bool = False) -> None:
        if db in context.open and context.open[db].top.pending:
            transaction = self.send_one(context, db, by_user=by_user)
            self.store(context, transaction, transaction.top.pending)
            transaction.top.pending.clear()

    def store(self, context: Context, transaction: Transaction, numbers: list[int]) -> None:
        """Rows are a part of the transaction; in autocommit they are durable at once."""
        if context.autocommit:
            self.rows[transaction.db].update(numbers)
        else:
            transaction.wrote = True
            transaction.top.rows += numbers

    def enlist(self, context: Context, db: int) -> None:
        """The session is made; the atomic scopes around hold it, inner ones by savepoints."""
        if db not in context.enlisted:
            context.enlisted.append(db)
            for place, frame in enumerate(context.owners(db)):
                frame.held[db] = self.savepoint(context, db) if place else None

    def savepoint(self, context: Context, db: int, *, by_user: bool = False) -> Layer:
        transaction = context.transaction(db)
        self.flush(context, db, by_user=by_user)
        transaction.layers.append(Layer())
        return transaction.top

    # Transactions

    def commit(self, context: Context, databases: Iterable[int]) -> None:
        """Flush, then COMMIT in order of first use; a refusal rolls back what is left."""
        ordered = [db for db in context.in_order_of_use(databases) if db in context.open]
        for db in ordered:
            self.flush(context, db)
        transactions = [context.open[db] for db in ordered]
        committed: list[int] = []
        for transaction in sorted(transactions, key=lambda one: not one.begun):
            if transaction.in_debt:
                for rest in transactions:
                    if rest.begun and rest.db not in committed:
                        context.end(rest, ROLLED_BACK)
                raise Problem("PartialCommitError" if committed else "IntegrityError")
            self.commit_one(context, transaction)
            if transaction.begun:
                committed.append(transaction.db)

    def commit_one(self, context: Context, transaction: Transaction) -> None:
        for layer in transaction.layers:
            self.rows[transaction.db].update(layer.rows)
        context.end(transaction, COMMITTED)

    def roll_back(self, context: Context, databases: Iterable[int]) -> None:
        for db in databases:
            if db in context.open:
                context.end(context.open[db], ROLLED_BACK)

    # Hooks

    def run_before(
        self,
        context: Context,
        due: Callable[[Hook], bool],
        databases: Callable[[], Iterable[int]],
    ) -> None:
        """Run rounds of before_commit hooks until none is due, each with a flush."""
        while True:
            for db in context.in_order_of_use(databases()):
                self.flush(context, db)
            hooks = [hook for hook in context.hooks if due(hook)]
            for hook in hooks:
                context.hooks.remove(hook)
                self.log.append((hook.number, hook.kind, None))
                self.do_in_hook(context, hook)
            if not hooks:
                return

    def do_in_hook(self, context: Context, hook: Hook) -> None:
        """Do what a before_commit hook does, in the context."""
        raise NotImplementedError

    def run_after(
        self, context: Context, settled: list[tuple[Hook, str]], fate: str
    ) -> Problem | None:
        """Run the hooks that an end with this ``fate`` settles; say if any failed."""
        failed = []
        for hook, told in sorted(settled, key=lambda one: context.hooks.index(one[0])):
            context.hooks.remove(hook)
            if hook.kind in _RUNS[told]:
                outcome = told if hook.kind == "after_completion" else None
                self.log.append((hook.number, hook.kind, outcome))
                if hook.does == "raise" and not hook.robust:
                    failed.append(hook.number)
                if hook.does == "write":
                    self.write_after(context, hook)
        kind = "AfterCommitError" if fate == COMMITTED else "ExceptionGroup"
        return Problem(kind, hooks=failed) if failed else None

    def write_after(self, context: Context, hook: Hook) -> None:
        """A hook writes in a transaction of its own; where SQLite's lock is held it refrains."""
        if self.sqlite and any(hook.db in one.open for one in self.contexts):
            self.refrain.add(hook.number)
        else:
            self.rows[hook.db].add(hook.number)

    def settled_by(self, context: Context, ended: list[Transaction]) -> list[tuple[Hook, str]]:
        """The context's hooks that an end by hand settles, with what they are told."""
        return [
            (hook, common_fate(hook.waits_for, common_fate(ended, UNKNOWN)))
            for hook in context.hooks
            if hook.owner is context.root and is_settled(hook, [])
        ]

    def told(self, hooks: list[Hook], fate: str) -> list[tuple[Hook, str]]:
        return [(hook, fate) for hook in hooks]

    def of(self, context: Context, owner: Frame) -> list[Hook]:
        return [hook for hook in context.hooks if hook.owner is owner]

    def hand_over(self, context: Context, frame: Frame) -> None:
        """Give a released scope's hooks to what is around it now."""
        owner = context.innermost()
        part = {*frame.held, *(DATABASES if frame.kind == "savepoint" else ())}
        still_open = {one for one in context.transactions if one.db in part}
        for hook in self.of(context, frame):
            hook.owner = owner
            hook.waits_for |= still_open


def is_settled(hook: Hook, ending: Iterable[Transaction]) -> bool:
    """Whether nothing that was open at its registration is still open after ``ending``."""
    left = hook.waits_for - set(ending)
    return all(one.fate != OPEN for one in left)


def common_fate(transactions: Iterable[Transaction], otherwise: str) -> str:
    """Give the fate of those that were used, ``unknown`` where it differs."""
    fates = {one.fate for one in transactions if one.used}
    if len(fates) > 1:
        return UNKNOWN
    return fates.pop() if fates else otherwise
