"""The model's exits: what becomes of a scope's work and hooks, and what leaves it."""

from __future__ import annotations

from tests.stateful.context import Context
from tests.stateful.ending import Ending, Settled
from tests.stateful.state import (
    COMMITTED,
    OPEN,
    ROLLED_BACK,
    UNKNOWN,
    Frame,
    Hook,
    Mark,
    Problem,
    Transaction,
    common_fate,
)

_HANDED = "handed over"


class Leaving(Ending):
    """Leaves scopes, normally or by an exception."""

    def leave(self, step: int, problem: Problem | None) -> None:
        """Leave the innermost scope, which returns ``step``; raise what leaves it."""
        context = self.contexts[-1]
        frame = context.frames[-1]
        if frame is context.root:
            self.leave_context(context, step, problem)
        elif frame.kind == "join":
            self.leave_joined(context, frame, problem)
        elif frame.kind == "savepoint":
            self.leave_savepoint(context, frame, problem)
        else:
            self.leave_block(context, frame, step, problem)

    def leave_joined(self, context: Context, frame: Frame, problem: Problem | None) -> None:
        context.frames.pop()
        if problem:
            if not frame.tolerates(problem) and not context.autocommit:
                context.doom(Mark(problem, frame.name), frame.touched)
            raise problem

    def leave_savepoint(self, context: Context, frame: Frame, problem: Problem | None) -> None:
        [(db, layer)] = frame.held.items()
        assert layer
        transaction = context.open[db]
        if problem is None:
            users = context.users_savepoints(db)
            marks = transaction.broken + [one.mark for one in users if one.mark]
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
        self.run_settled(context, told(context, frame, ROLLED_BACK))
        raise problem

    # Blocks

    def leave_block(
        self, context: Context, frame: Frame, step: int, problem: Problem | None
    ) -> None:
        before = list(context.open.values())
        fate = ROLLED_BACK
        if problem is None or (frame.kind == "nested" and frame.tolerates(problem)):
            try:
                fate = self.keep_block(context, frame, problem)
            except Problem as failure:
                fate = UNKNOWN if failure.kind == "PartialCommitError" else ROLLED_BACK
                problem = problem or failure
        if fate in {ROLLED_BACK, UNKNOWN}:
            self.roll_back_block(context, frame)
        context.frames.pop()
        ended = {one for one in before if one.fate != OPEN and one.used}
        if fate == _HANDED:
            self.hand_over(context, frame, ended)
        around = [one for one in self.settled_by(context, []) if one[0].waits_for & ended]
        settled = told(context, frame, fate) + around
        self.complain(context, settled, fate, frame, step, problem)

    def keep_block(self, context: Context, frame: Frame, problem: Problem | None) -> str:
        """Commit its transactions and release its savepoints; or roll back if it asked for it."""
        is_handed = (
            frame.kind == "nested"
            or len(frame.own) < len(frame.held)
            or (not frame.held and any(one.covers for one in context.frames[:-1]))
        )
        if not is_handed and not self.marks_of(context, frame, problem):
            self.run_before(
                context, lambda hook: ends_with(hook, context, frame), lambda: frame.held
            )
        marks = self.marks_of(context, frame, problem)
        if marks and marks[0] is frame.mark and frame.mark.own:
            return ROLLED_BACK
        if marks and not marks[0].own:
            raise Problem("UnexpectedRollbackError", causes=marks, function=frame.name)
        for db in frame.held:
            self.flush(context, db)
        released = [db for db in frame.held if db not in frame.own]
        for db in released:
            layer = frame.held.pop(db)
            assert layer
            context.open[db].release(layer)
        if frame.kind == "nested":
            return _HANDED
        if marks:  # what is around it asked for the rollback, and rolls back in the end
            self.roll_back(context, frame.own)
            return _HANDED if is_handed else ROLLED_BACK
        try:
            self.commit(context, frame.own)
        except Problem as failure:
            for db in released:  # it can't be undone alone any more
                context.doom_around(db, Mark(failure, frame.name), context.frames[:-1])
            raise
        return _HANDED if is_handed else COMMITTED

    def marks_of(self, context: Context, frame: Frame, problem: Problem | None) -> list[Mark]:
        """What keeps a block from committing: its own mark, errors, then what dooms each Database."""
        on_each = [context.marks_on(db) for db in frame.held]
        marks = [frame.mark] if frame.mark else []
        marks += [mark for of_one in on_each for mark in of_one if mark.is_broken]
        marks += [mark for of_one in on_each for mark in of_one[:1]]
        marks += [mark for of_one in on_each for mark in of_one[1:]]
        return [mark for mark in marks if problem is None or mark.error is not problem]

    def roll_back_block(self, context: Context, frame: Frame) -> None:
        self.roll_back(context, frame.own)
        for db, layer in frame.held.items():
            if layer and db in context.open:
                context.open[db].roll_back_to(layer)

    # Contexts

    def leave_context(self, context: Context, step: int, problem: Problem | None) -> None:
        fate = ROLLED_BACK
        ended: list[Transaction] = []
        if problem is None or context.root.tolerates(problem):
            try:
                fate = self.keep_context(context, problem, ended)
            except Problem as failure:
                fate = UNKNOWN if failure.kind == "PartialCommitError" else ROLLED_BACK
                problem = problem or failure
        ended += [one for one in context.open.values() if one not in ended]
        self.roll_back(context, list(context.open))
        self.contexts.pop()
        together = common_fate(ended, fate)
        settled = [
            (hook, UNKNOWN if together == UNKNOWN else common_fate(hook.waits_for, together))
            for hook in context.hooks
        ]
        self.complain(context, settled, fate, context.root, step, problem)

    def keep_context(
        self, context: Context, problem: Problem | None, ended: list[Transaction]
    ) -> str:
        """Commit everything, unless something dooms it."""

        def marks() -> list[Mark]:
            return [one for one in context.final_marks() if not problem or one.error is not problem]

        if not marks():
            self.run_before(context, lambda _: True, lambda: context.open)
        if left := marks():
            if left[0].own or problem:
                return ROLLED_BACK
            raise Problem("UnexpectedRollbackError", causes=left, function=context.root.name)
        ended += context.open.values()
        self.commit(context, list(context.open))
        return COMMITTED

    def complain(
        self,
        context: Context,
        settled: Settled,
        fate: str,
        frame: Frame,
        step: int,
        problem: Problem | None,
    ) -> None:
        """Run the hooks, and raise what leaves; a hook that fails beside it is only noted."""
        result = step if frame.is_function else None
        failed = self.run_after(context, settled, fate, function=frame.name, result=result)
        if problem is not None:
            raise problem
        if failed is not None:
            raise failed


def told(context: Context, frame: Frame, fate: str) -> Settled:
    return [(hook, fate) for hook in context.hooks if hook.owner is frame]


def ends_with(hook: Hook, context: Context, frame: Frame) -> bool:
    """Whether the hook is the block's, or waits for a transaction that the block took over."""
    ending = {context.open[db] for db in frame.held if db in context.open}
    waits = hook.owner is context.root and bool(hook.waits_for & ending)
    return hook.owner is frame or (waits and hook.is_settled(ending))
