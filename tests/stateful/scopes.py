"""The model's scopes: what opening one does, and what leaving it does."""

from __future__ import annotations

from collections.abc import Iterable

from tests.stateful import commands as do
from tests.stateful.endings import Endings, common_fate, is_settled
from tests.stateful.state import (
    COMMITTED,
    DATABASES,
    OPEN,
    ROLLED_BACK,
    UNKNOWN,
    Context,
    Frame,
    Hook,
    Mark,
    Problem,
    Transaction,
)

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
_PARTS_A_BLOCK = {None, "savepoint"}


class Scopes(Endings):
    def here(self, function: str) -> Context:
        if not self.contexts:
            raise Problem("NoContextError", function=function)
        return self.contexts[-1]

    # Opening

    def open_unit(self, step: int, command: do.Unit) -> None:
        context = self.contexts[-1] if self.contexts else None
        column = 1 if context is None else 2 if context.autocommit else 0
        decision = _PROPAGATION[command.kind][column]
        frame = Frame(decision, str(step), step, lenient=command.lenient)
        if decision.endswith("Error"):
            raise Problem(decision, function=str(step))
        if decision in {"open", "autocommit"}:
            self.contexts.append(Context(frame, context, autocommit=decision == "autocommit"))
        elif decision == "join" and context:
            context.frames.append(frame)
        elif context:
            frame.covers = DATABASES
            for db in context.in_order_of_use(context.enlisted):
                if db in context.open or context.owners(db):
                    frame.held[db] = self.savepoint(context, db)
                else:
                    frame.held[db] = None
            context.frames.append(frame)

    def open_savepoint(self, step: int, db: int) -> None:
        context = self.here("db_session")
        self.enlist(context, db)
        marks = context.marks_on(db)
        if marks and marks[0].error:
            raise Problem("UnexpectedRollbackError", causes=marks)
        layer = self.savepoint(context, db, by_user=True)
        context.frames.append(Frame("savepoint", None, step, held={db: layer}))

    def open_atomic(self, step: int, command: do.Atomic) -> None:
        covers = command.databases or DATABASES
        frame = Frame("block", str(step), step, covers)
        context = self.contexts[-1] if self.contexts else None
        if context is None or context.autocommit:
            context = Context(frame, context, autocommit=False)
            self.contexts.append(context)
        else:
            self.enter_block(context, frame, command)
            context.frames.append(frame)
        if command.face != "function" and len(command.databases) == 1:
            self.enlist(context, command.databases[0])

    def enter_block(self, context: Context, frame: Frame, command: do.Atomic) -> None:
        """Plan for every Database, then commit or roll back first, then hold them."""
        if command.mode not in _PARTS_A_BLOCK:
            for outer in context.frames:
                if set(outer.covers) & set(frame.covers):
                    raise Problem("AtomicControlError", function=outer.name)
        present = [db for db in context.enlisted if db in frame.covers]
        met = [db for db in context.in_order_of_use(present) if self.is_met(context, db)]
        mode = command.mode
        if command.face == "atomic_db_session" and mode is None:
            mode = "commit"
        for db in met:
            self.refuse(context, frame, db, mode)
        if met and mode in {None, "commit"}:
            self.commit_by_hand(context, met)
        if mode == "rollback":
            self.roll_back_by_hand(context, met, only_open=True)
        for db in context.in_order_of_use(present):
            inner = bool(context.owners(db)) or (mode == "savepoint" and db in met)
            frame.held[db] = self.savepoint(context, db) if inner else None

    def is_met(self, context: Context, db: int) -> bool:
        return db in context.open and not context.owners(db)

    def refuse(self, context: Context, frame: Frame, db: int, mode: str | None) -> None:
        transaction = context.open[db]
        if mode == "raise":
            raise Problem("OpenTransactionError", function=frame.name)
        if mode in {None, "commit"} and context.marks_on(db):
            raise Problem("UnexpectedRollbackError", causes=context.marks_on(db))
        harmful = transaction.wrote or transaction.top.pending or len(transaction.layers) > 1
        if mode is None and harmful:
            raise Problem("OpenTransactionError", function=frame.name)

    # By hand

    def commit_by_hand(self, context: Context, databases: list[int]) -> None:
        ending = [context.open[db] for db in databases]
        self.run_before(
            context,
            lambda hook: (
                hook.kind == "before_commit"
                and hook.owner is context.root
                and is_settled(hook, ending)
            ),
            lambda: databases,
        )
        if marks := self.doomed(context, databases):
            raise Problem("UnexpectedRollbackError", causes=marks)
        try:
            self.commit(context, databases)
        except Problem:
            self.run_after(context, self.settled_by(context, ending), ROLLED_BACK)
            raise
        ended = [one for one in ending if one.used]
        self.settle(context, ended, COMMITTED)

    def doomed(self, context: Context, databases: Iterable[int]) -> list[Mark]:
        return [mark for db in databases for mark in context.marks_on(db)]

    def roll_back_by_hand(
        self, context: Context, databases: list[int], *, only_open: bool = False
    ) -> None:
        ending = [context.open[db] for db in databases if db in context.open]
        self.roll_back(context, databases)
        for db in databases:
            context.mend(db)
        self.settle(context, [one for one in ending if one.used], ROLLED_BACK)

    def settle(self, context: Context, ended: list[Transaction], fate: str) -> None:
        settled = self.settled_by(context, ended) if ended else []
        if failed := self.run_after(context, settled, fate):
            raise failed

    def ask(self, context: Context) -> None:
        """The nearest decorated function or block asks; a savepoint of the user's is neither."""
        if context.autocommit:
            raise Problem("TransactionRequiredError")
        nearest = next(one for one in reversed(context.frames) if one.kind != "savepoint")
        if nearest.kind == "join":
            context.doom(Mark(None, nearest.name), ())
        else:
            context.doom_unit(nearest, Mark(None, nearest.name, own=True))

    # Leaving

    def leave(self, problem: Problem | None) -> None:
        """Leave the innermost scope; raise what leaves it."""
        context = self.contexts[-1]
        frame = context.frames[-1]
        if frame is context.root:
            self.leave_context(context, problem)
        elif frame.kind == "join":
            context.frames.pop()
            if problem and not tolerates(frame, problem) and not context.autocommit:
                context.doom(Mark(problem, frame.name), frame.touched)
            if problem:
                raise problem
        elif frame.kind == "savepoint":
            self.leave_savepoint(context, frame, problem)
        else:
            self.leave_block(context, frame, problem)

    def leave_savepoint(self, context: Context, frame: Frame, problem: Problem | None) -> None:
        [(db, layer)] = frame.held.items()
        transaction = context.open[db]
        if problem is None:
            marks = [Mark(error) for error in transaction.errors]
            users = [one for one in context.frames if one.kind == "savepoint" and db in one.held]
            marks += [one.mark for one in users if one.mark]
            try:
                if marks:
                    raise Problem("UnexpectedRollbackError", causes=marks)
                self.flush(context, db, by_user=True)
            except Problem as refused:
                problem = refused
        context.frames.pop()
        if problem is None:
            transaction.release(layer)
            self.hand_over(context, frame)
            return
        transaction.roll_back_to(layer)
        self.run_after(context, self.told(self.of(context, frame), ROLLED_BACK), ROLLED_BACK)
        raise problem

    def leave_block(self, context: Context, frame: Frame, problem: Problem | None) -> None:
        before = list(context.open.values())
        fate = ROLLED_BACK
        keeps = frame.kind == "nested" and tolerates(frame, problem)
        if problem is None or keeps:
            try:
                fate = self.keep_block(context, frame, problem)
            except Problem as failure:
                fate = UNKNOWN if failure.kind == "PartialCommitError" else ROLLED_BACK
                problem = problem or failure
        if fate in {ROLLED_BACK, UNKNOWN}:
            self.roll_back_block(context, frame)
        context.frames.pop()
        settled = []
        if fate == "handed":
            self.hand_over(context, frame)
        else:
            settled = self.told(self.of(context, frame), fate)
        ended = {one for one in before if one.fate != OPEN and one.used}
        settled += [one for one in self.settled_by(context, []) if one[0].waits_for & ended]
        failed = self.run_after(context, settled, fate)
        if problem or failed:
            raise problem or failed  # type: ignore[misc]  # a failed hook is noted on the first

    def keep_block(self, context: Context, frame: Frame, problem: Problem | None) -> str:
        """Commit its transactions and release its savepoints; or roll back if it asked for it."""
        if frame.mark and frame.mark.own:
            return ROLLED_BACK
        own = {db for db, layer in frame.held.items() if layer is None}
        is_handed = (
            frame.kind == "nested"
            or own != set(frame.held)
            or (not frame.held and any(one.covers for one in context.frames[:-1]))
        )
        if not is_handed and not self.marks_of_block(context, frame, problem):
            self.run_before(
                context,
                lambda hook: hook.kind == "before_commit" and self.ends_with(hook, context, frame),
                lambda: frame.held,
            )
            if frame.mark and frame.mark.own:
                return ROLLED_BACK
        marks = self.marks_of_block(context, frame, problem)
        if marks and not marks[0].own:
            raise Problem("UnexpectedRollbackError", causes=marks)
        own = {db for db, layer in frame.held.items() if layer is None}
        for db in frame.held:
            self.flush(context, db)
        released = self.release(context, frame)
        if frame.kind == "nested":
            return "handed"
        if marks:  # what is around it asked for the rollback, and rolls back in the end
            self.roll_back(context, own)
            return "handed" if is_handed else ROLLED_BACK
        try:
            self.commit(context, own)
        except Problem as failure:
            for db in released:
                context.doom_around(db, Mark(failure, frame.name), context.frames[:-1])
            raise
        return "handed" if is_handed else COMMITTED

    def ends_with(self, hook: Hook, context: Context, frame: Frame) -> bool:
        """Whether the hook is the block's, or waits for a transaction that the block took over."""
        ending = {context.open[db] for db in frame.held if db in context.open}
        waits = hook.owner is context.root and hook.waits_for & ending
        return hook.owner is frame or bool(waits and is_settled(hook, ending))

    def marks_of_block(self, context: Context, frame: Frame, problem: Problem | None) -> list[Mark]:
        on_each = [context.marks_on(db) for db in frame.held]
        marks = [mark for marks in on_each for mark in marks if mark.is_broken]
        marks += [mark for marks in on_each for mark in marks[:1]]
        marks += [mark for marks in on_each for mark in marks[1:]]
        marks = [frame.mark, *marks] if frame.mark else marks
        return [mark for mark in marks if problem is None or mark.error is not problem]

    def release(self, context: Context, frame: Frame) -> list[int]:
        released = [db for db, layer in frame.held.items() if layer is not None]
        for db in released:
            layer = frame.held.pop(db)
            assert layer
            context.open[db].release(layer)
        return released

    def roll_back_block(self, context: Context, frame: Frame) -> None:
        for db, layer in frame.held.items():
            if layer is None:
                self.roll_back(context, [db])
            elif db in context.open:
                context.open[db].roll_back_to(layer)

    def leave_context(self, context: Context, problem: Problem | None) -> None:
        fate = ROLLED_BACK
        before: list[Transaction] = []
        if problem is None or tolerates(context.root, problem):
            try:
                fate = self.keep_context(context, problem, before)
            except Problem as failure:
                fate = UNKNOWN if failure.kind == "PartialCommitError" else ROLLED_BACK
                problem = problem or failure
        before += [one for one in context.open.values() if one not in before]
        self.roll_back(context, list(context.open))
        self.contexts.pop()
        settled = [(hook, self.final_fate(context, hook, before, fate)) for hook in context.hooks]
        failed = self.run_after(context, settled, fate)
        if problem or failed:
            raise problem or failed  # type: ignore[misc]  # a failed hook is noted on the first

    def final_fate(self, context: Context, hook: Hook, ended: list[Transaction], fate: str) -> str:
        own = [one for one in hook.waits_for if one.used]
        together = common_fate(ended, fate)
        return UNKNOWN if together == UNKNOWN else common_fate(own, together)

    def keep_context(
        self, context: Context, problem: Problem | None, ended: list[Transaction]
    ) -> str:
        """Commit everything, unless something dooms it."""

        def marks() -> list[Mark]:
            return [one for one in context.final_marks() if not problem or one.error is not problem]

        if not marks():
            self.run_before(
                context, lambda hook: hook.kind == "before_commit", lambda: context.open
            )
        if left := marks():
            if left[0].own or problem:
                return ROLLED_BACK
            raise Problem("UnexpectedRollbackError", causes=left)
        ended += context.open.values()
        self.commit(context, list(context.open))
        return COMMITTED


def tolerates(frame: Frame, problem: Problem | None) -> bool:
    """Whether the frame's own rules commit with the exception."""
    return frame.lenient and problem is not None and problem.kind == "Tolerable"
