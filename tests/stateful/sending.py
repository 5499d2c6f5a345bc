"""The model's statements: what is sent, refused, flushed, and where it lands."""

from __future__ import annotations

from tests.stateful.context import Context
from tests.stateful.state import DATABASES, Layer, Problem, Transaction


class Sending:
    """The world: committed rows, the hooks that ran, and the contexts, the running one last.

    ``refrain`` are hooks that don't write after all, since SQLite's write lock is held.
    """

    def __init__(self, *, sqlite: bool) -> None:
        self.sqlite = sqlite
        self.rows: tuple[set[int], ...] = tuple(set() for _ in DATABASES)
        self.log: list[tuple[int, str, str | None]] = []
        self.refrain: set[int] = set()
        self.contexts: list[Context] = []

    def here(self, function: str) -> Context:
        if not self.contexts:
            raise Problem("NoContextError", function=function)
        return self.contexts[-1]

    def session(self, db: int) -> Context:
        """``db_session(db)``: the atomic scopes around hold it, inner ones by savepoints."""
        context = self.here("db_session")
        if db not in context.enlisted:
            context.enlisted.append(db)
            for place, frame in enumerate(context.owners(db)):
                frame.held[db] = self.savepoint(context, db) if place else None
        return context

    def send(self, context: Context, db: int, *, reads: bool = False) -> Transaction:
        """Send a statement of the user's, pending objects first."""
        self.flush(context, db, by_user=True)
        return self.send_one(context, db, reads=reads)

    def send_one(
        self, context: Context, db: int, *, by_user: bool = True, reads: bool = False
    ) -> Transaction:
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

    def store(self, context: Context, transaction: Transaction, numbers: list[int]) -> None:
        """Rows are a part of the transaction; in autocommit they are durable at once."""
        if context.autocommit:
            self.rows[transaction.db].update(numbers)
        else:
            transaction.wrote = True
            transaction.top.rows += numbers

    def flush(self, context: Context, db: int, *, by_user: bool = False) -> None:
        if db in context.open and context.open[db].top.pending:
            transaction = self.send_one(context, db, by_user=by_user)
            self.store(context, transaction, transaction.top.pending)
            transaction.top.pending.clear()

    def savepoint(self, context: Context, db: int) -> Layer:
        transaction = context.transaction(db)
        self.flush(context, db, by_user=True)
        transaction.layers.append(Layer())
        return transaction.top
