"""The model: what a user is promised of every command, and nothing of how it is done.

``do`` says which exception a command meets, or None. Afterwards ``rows`` are what a second
connection must see, ``log`` the hooks that must have run, ``in_transaction`` the answer of the
function of that name. A re-statement of the contract, to be read beside it.
"""

from __future__ import annotations

from typing import Any

from tests.stateful import commands as do
from tests.stateful.context import Context
from tests.stateful.leaving import Leaving
from tests.stateful.opening import Opening
from tests.stateful.state import Hook, Mark, Problem

_THOUSAND = 1000


class Model(Opening, Leaving):
    """The world as the contract has it."""

    def do(self, step: int, command: do.Command, leaving: Problem | None = None) -> Problem | None:
        """Do the command; give the exception that it meets. ``leaving`` is what an End raises."""
        try:
            if isinstance(command, do.End):
                self.leave(step, leaving)
            else:
                handler: Any = getattr(self, f"do_{type(command).__name__.lower()}")
                handler(step, command)
        except Problem as problem:
            return problem
        return None

    def in_transaction(self, db: int) -> bool:
        context = self.contexts[-1] if self.contexts else None
        return context is not None and not context.autocommit and db in context.open

    # Statements

    def do_write(self, step: int, command: do.Write) -> None:
        context = self.session(command.db)
        if command.pending:
            for frame in context.frames:
                frame.touched.add(command.db)
            context.transaction(command.db).top.pending.append(step)
        else:
            self.store(context, self.send(context, command.db), [step])

    def do_read(self, _: int, command: do.Read) -> None:
        self.send(self.session(command.db), command.db, reads=True)

    def do_fail(self, _: int, command: do.Fail) -> None:
        """A statement that the server refuses; on SQLite the driver is the server."""
        context = self.session(command.db)
        reads = command.why == "missing"
        transaction = self.send(context, command.db, reads=reads)
        problem = Problem("DBAPIError")
        if not context.autocommit:
            transaction.wrote |= not reads
            if command.why != "argument" or self.sqlite:
                transaction.top.error = transaction.top.error or problem
        raise problem

    def do_borrow(self, _: int, command: do.Borrow) -> None:
        context = self.session(command.db)
        transaction = self.send(context, command.db)
        if context.autocommit:
            raise Problem("IntegrityError")
        transaction.wrote = transaction.top.in_debt = True

    # By hand

    def do_finish(self, _: int, command: do.Finish) -> None:
        db = command.db
        context = self.here(f"{command.how}_db_session")
        if command.by == "session":
            self.session(db)
        if owners := context.owners(db):
            raise Problem("AtomicControlError", function=owners[-1].name)
        if command.how == "commit":
            if db in context.enlisted and context.marks_on(db):
                raise Problem("UnexpectedRollbackError", causes=context.marks_on(db))
            if db in context.open:
                self.commit_by_hand(context, [db])
            return
        was_enlisted = db in context.enlisted
        if command.how == "close" and was_enlisted:
            context.enlisted.remove(db)
            for frame in context.frames:
                frame.touched.discard(db)
        if was_enlisted:
            self.roll_back_by_hand(context, [db])
        else:
            context.mend(db)

    def do_askrollback(self, *_: object) -> None:
        """The nearest decorated function or block asks; a savepoint of the user's is neither."""
        context = self.here("set_rollback_only")
        if context.autocommit:
            raise Problem("TransactionRequiredError", function="set_rollback_only")
        nearest = next(one for one in reversed(context.frames) if one.kind != "savepoint")
        if nearest.kind == "join":
            context.doom(Mark(None, nearest.name))
        else:
            context.doom_unit(nearest, Mark(None, nearest.name, own=True))

    # Hooks

    def do_hook(self, step: int, command: do.Hook) -> None:
        context = self.here(command.kind)
        kind, does, db, robust = command.kind, command.does, command.db, command.robust
        owner, waits_for = context.innermost(), context.transactions
        context.hooks.append(Hook(step, kind, does, db, robust, owner, waits_for))

    def do_in_hook(self, context: Context, hook: Hook) -> None:
        if hook.does == "raise":
            raise Problem("HookFailure", hooks=[hook.number])
        if hook.does == "write":
            self.do_write(hook.number, do.Write(hook.db))
        if hook.does == "ask":
            self.do_askrollback()
        if hook.does == "hook":
            second = do.Hook("before_commit", "write", hook.db)
            self.do_hook(hook.number + _THOUSAND, second)
            self.do_hook(hook.number + 2 * _THOUSAND, do.Hook("after_commit"))
