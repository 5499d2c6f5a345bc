"""The model's openings: joining, a context, an atomic block, a savepoint, or a refusal."""

from __future__ import annotations

from tests.stateful import commands as do
from tests.stateful.context import Context
from tests.stateful.ending import Ending
from tests.stateful.state import DATABASES, Frame, Problem

_PROPAGATION = {  # in a transactional context, in none, in one in autocommit
    "required": ("join", "open", "open"),
    "requires_new": ("open", "open", "open"),
    "new_context": ("open", "open", "open"),
    "nested": ("nested", "open", "open"),
    "mandatory": ("join", "TransactionRequiredError", "TransactionRequiredError"),
    "supports": ("join", "autocommit", "join"),
    "not_supported": ("autocommit", "autocommit", "join"),
    "never": ("TransactionNotAllowedError", "autocommit", "join"),
}
_IS_A_PART = {None, "savepoint"}


class Opening(Ending):
    """Opens scopes."""

    def do_unit(self, step: int, command: do.Unit) -> None:
        context = self.contexts[-1] if self.contexts else None
        column = 1 if context is None else 2 if context.autocommit else 0
        decision = _PROPAGATION[command.kind][column]
        is_function = command.face == "function"
        frame = Frame(decision, str(step), is_function, lenient=command.lenient)
        if decision.endswith("Error"):
            raise Problem(decision, function=str(step))
        if context is None or decision in {"open", "autocommit"}:
            self.contexts.append(Context(frame, context, autocommit=decision == "autocommit"))
            return
        if decision == "nested":
            frame.covers = DATABASES
            for db in context.in_order_of_use(context.enlisted):
                inner = db in context.open or context.owners(db)
                frame.held[db] = self.savepoint(context, db) if inner else None
        context.frames.append(frame)

    def do_savepoint(self, step: int, command: do.Savepoint) -> None:
        context = self.session(command.db)
        marks = context.marks_on(command.db)
        if marks and marks[0].error:
            raise Problem("UnexpectedRollbackError", causes=marks)
        layer = self.savepoint(context, command.db)
        context.frames.append(Frame("savepoint", None, held={command.db: layer}))

    def do_atomic(self, step: int, command: do.Atomic) -> None:
        is_function = command.face == "function"
        name = str(step) if is_function else None
        frame = Frame("block", name, is_function, command.databases or DATABASES)
        context = self.contexts[-1] if self.contexts else None
        if context is None or context.autocommit:
            self.contexts.append(Context(frame, context))
        else:
            self.enter_block(context, frame, command)
            context.frames.append(frame)
        if command.face != "function" and len(command.databases) == 1:
            self.session(command.databases[0])

    def enter_block(self, context: Context, frame: Frame, command: do.Atomic) -> None:
        """Plan for every Database, then commit or roll back first, then hold them."""
        if command.mode not in _IS_A_PART:
            for outer in context.frames:
                if set(outer.covers) & set(frame.covers):
                    raise Problem("AtomicControlError", function=outer.name)
        mode = command.mode
        if command.face == "atomic_db_session" and mode is None:
            mode = "commit"
        present = context.in_order_of_use(db for db in context.enlisted if db in frame.covers)
        met = [db for db in present if db in context.open and not context.owners(db)]
        for db in met:
            self.refuse(context, frame, db, mode)
        if met and mode in {None, "commit"}:
            self.commit_by_hand(context, met)
        if met and mode == "rollback":
            self.roll_back_by_hand(context, met)
        for db in present:
            inner = context.owners(db) or (mode == "savepoint" and db in met)
            frame.held[db] = self.savepoint(context, db) if inner else None

    def refuse(self, context: Context, frame: Frame, db: int, mode: str | None) -> None:
        """Refuse what can't be committed first, or must not be without being told."""
        one = context.open[db]
        marks = context.marks_on(db)
        if mode in {None, "commit"} and marks:
            raise Problem("UnexpectedRollbackError", causes=marks)
        harmful = one.wrote or one.top.pending or len(one.layers) > 1
        if mode == "raise" or (mode is None and harmful):
            raise Problem("OpenTransactionError", function=frame.name)
