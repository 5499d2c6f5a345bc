"""The model: what a user is promised of every command, and nothing of how it is done.

``do`` says which exception a command meets, or None. Afterwards ``rows`` are what a second
connection must see, ``log`` the hooks that must have run, ``in_transaction`` the answer of the
function of that name. A re-statement of the contract, to be read beside it.
"""

from __future__ import annotations

from tests.stateful import commands as do
from tests.stateful.scopes import Scopes
from tests.stateful.state import Context, Hook, Problem

_LIMIT = 1000


class Model(Scopes):
    """The world as the contract has it."""

    def do(  # noqa: C901
        self, step: int, command: do.Command, leaving: Problem | None = None
    ) -> Problem | None:
        """Do the command; give the exception that it meets. ``leaving`` is what an End raises."""
        try:
            match command:
                case do.Unit():
                    self.open_unit(step, command)
                case do.Atomic():
                    self.open_atomic(step, command)
                case do.Savepoint(db):
                    self.open_savepoint(step, db)
                case do.End():
                    self.leave(leaving)
                case do.Write(db, pending):
                    self.write(self.here("db_session"), db, step, pending=pending)
                case do.Read(db):
                    self.send(self.here("db_session"), db, reads=True)
                case do.Fail(db, why):
                    self.fail(db, why)
                case do.Borrow(db):
                    self.borrow(db)
                case do.Finish(how, db, by):
                    self.finish(how, db, by)
                case do.AskRollback():
                    self.ask_rollback()
                case do.Hook():
                    self.register(step, command)
        except Problem as problem:
            return problem
        return None

    def in_transaction(self, db: int) -> bool:
        context = self.contexts[-1] if self.contexts else None
        return context is not None and not context.autocommit and db in context.open

    def write(self, context: Context, db: int, number: int, *, pending: bool = False) -> None:
        if pending:
            self.enlist(context, db)
            for frame in context.frames:
                frame.touched.add(db)
            context.transaction(db).top.pending.append(number)
            return
        self.store(context, self.send(context, db), [number])

    def fail(self, db: int, why: str) -> None:
        """A statement that the server refuses; on SQLite the driver is the server."""
        context = self.here("db_session")
        transaction = self.send(context, db, reads=why == "missing")
        problem = Problem("DBAPIError")
        if not context.autocommit:
            transaction.wrote |= why != "missing"
            if why != "argument" or self.sqlite:
                transaction.top.error = transaction.top.error or problem
        raise problem

    def borrow(self, db: int) -> None:
        context = self.here("db_session")
        transaction = self.send(context, db)
        if context.autocommit:
            raise Problem("IntegrityError")
        transaction.wrote = True
        transaction.top.in_debt = True

    def finish(self, how: str, db: int, by: str) -> None:
        """Commit, roll back or close by hand."""
        context = self.here(f"{how}_db_session")
        if by == "session":
            self.enlist(context, db)
        if context.owners(db):
            raise Problem("AtomicControlError")
        if how == "commit":
            if db in context.enlisted and context.marks_on(db):
                raise Problem("UnexpectedRollbackError", causes=context.marks_on(db))
            if db in context.open:
                self.commit_by_hand(context, [db])
        else:
            self.roll_back_by_hand(context, [db])
        if how == "close" and db in context.enlisted:
            context.enlisted.remove(db)
            for frame in context.frames:
                frame.touched.discard(db)

    def ask_rollback(self) -> None:
        self.ask(self.here("set_rollback_only"))

    # Hooks

    def register(self, step: int, command: do.Hook) -> None:
        context = self.here(command.kind)
        context.hooks.append(
            Hook(
                step,
                command.kind,
                command.does,
                command.db,
                command.robust,
                owner=context.innermost(),
                waits_for=context.transactions,
            )
        )

    def do_in_hook(self, context: Context, hook: Hook) -> None:
        if hook.does == "raise":
            raise Problem("HookFailure", hooks=[hook.number])
        if hook.does == "write":
            self.write(context, hook.db, hook.number)
        if hook.does == "ask":
            self.ask(context)
        if hook.does == "hook":
            self.register(hook.number + _LIMIT, do.Hook("before_commit", "write", db=hook.db))
            self.register(hook.number + 2 * _LIMIT, do.Hook("after_commit"))
