"""The context: what the ContextVar holds while a boundary is open.

One participant (a session and its transaction) per Database, made on demand;
a stack of scopes (the context itself, then its atomic blocks); and the marks
of what may only be rolled back. A context is shared by everything that runs
inside, a place is not: it is where the running code stands in its context.

This is the only ContextVar of txkit. It is set and restored by value, never by
token: a generator or another task may be the one that restores it.

Must not send SQL: ``boundary`` does that.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING

from txkit.errors import AtomicControlError, ContextClosedError, NoContextError

if TYPE_CHECKING:
    from collections.abc import Callable

    from txkit._core.participant import Participant
    from txkit._core.scope import Mark, Savepoint, Scope
    from txkit.database import Database


class State(Enum):
    """A context is open, then closed, and never open again."""

    OPEN = "open"
    CLOSED = "closed"


class Context:
    """Sessions, scopes and state of one boundary.

    ``clock`` counts statements, so that one can say what was used since when.
    """

    __slots__ = (
        "clock",
        "doomed",
        "name",
        "outer",
        "participants",
        "root",
        "scopes",
        "state",
        "task",
        "used",
    )

    def __init__(self, root: Scope, outer: Context | None) -> None:
        self.name = root.name
        self.root = root
        self.outer = outer
        self.task = asyncio.current_task()
        self.state = State.OPEN
        self.participants: dict[Database, Participant] = {}
        self.used: dict[Database, None] = {}
        self.scopes: list[Scope] = [root]
        self.clock = 0
        self.doomed = False

    def close(self) -> None:
        """End the context and let go of everything.

        An idle connection keeps the ContextVars of the task that opened it.
        """
        self.state = State.CLOSED
        self.outer = self.task = None
        self.used.clear()
        for scope in self.scopes:
            scope.clear()

    def tick(self) -> int:
        """Count on: something was used or opened."""
        self.clock += 1
        return self.clock

    def doom(self, mark: Mark, *, since: int) -> None:
        """Mark what a joined call belonged to rollback-only.

        That is the innermost atomic block or savepoint of the user's, else the
        transactions that are open in the context; and, of the other Databases, each
        one that the call used (after ``since``) and that has a transaction.
        """
        self.doomed = True
        scope = self.scopes[-1]
        points = [point for one in self._all() if (point := one.users_savepoint()) is not None]
        innermost = max(points, key=lambda point: point.order, default=None)
        if innermost is not None and innermost.order > scope.order:
            innermost.doom(mark)
        else:
            self.doom_scope(scope, mark)
        for one in self._all():
            if one.in_transaction and one.was_used_since(since) and self.mark_on(one) is None:
                self._doom_unit_of(one, mark)

    def doom_scope(self, scope: Scope, mark: Mark) -> None:
        """Mark a whole scope, or of the context the transactions that are open."""
        self.doomed = True
        opened = [one.database for one in self._all() if one.in_transaction]
        if scope is self.root and opened and not mark.own:
            for database in opened:
                scope.marks.setdefault(database, mark)
        else:
            scope.doom(mark)

    def doom_around(self, scope: Scope, ended: list[Participant], mark: Mark) -> None:
        """Mark what encloses a scope, for the participants whose work it can't undo any more."""
        for one in ended:
            self.doomed = True
            self._doom_unit_of(one, mark, inside=scope.order)

    def doom_all(self, mark: Mark) -> None:
        """Mark every scope: a connection is gone, and with it what all of them did on it."""
        self.doomed = True
        for scope in self.scopes:
            scope.doom(mark)

    def mark_on(self, one: Participant) -> Mark | None:
        """Give the mark that dooms what the participant does now, innermost first."""
        if not self.doomed:
            return None
        marked = [point for point in one.points.values() if point.mark is not None]
        if marked:
            return marked[-1].mark
        for scope in reversed(self.scopes[1:]):
            if scope.mark is not None and scope.owns(one.database):
                return scope.mark
        return self.root.mark_on(one.database)

    def final_mark(self) -> Mark | None:
        """Give the mark that keeps the context from committing; its own request goes first."""
        marks = self.final_marks()
        return next((mark for mark in marks if mark.own), marks[0] if marks else None)

    def final_marks(self) -> list[Mark]:
        """Give every mark that is left; that of the whole context unless all of it was mended."""
        if not self.doomed:
            return []
        root, everyone = self.root, self._all()
        marks = [mark for one in everyone if (mark := self.mark_on(one)) is not None]
        is_mended = root.mended and all(
            one.database in root.mended for one in everyone if one.in_transaction
        )
        if root.mark is not None and not is_mended:
            marks.append(root.mark)
        return [*marks, *root.marks.values()]

    def rolled_back(self, database: Database, *, by_hand: bool) -> None:
        """Take the mark off a transaction that was rolled back: it is mended, it alone."""
        self.root.marks.pop(database, None)
        if by_hand and self.root.mark is not None:
            self.root.mended.add(database)

    def _doom_unit_of(self, one: Participant, mark: Mark, inside: int | None = None) -> None:
        """Mark the participant's own innermost unit, of those opened before ``inside``."""
        point = one.users_savepoint()
        owners = [scope for scope in self.scopes[1:] if scope.owns(one.database)]
        units: list[Scope | Savepoint] = [*owners, *([] if point is None else [point])]
        around = [unit for unit in units if inside is None or unit.order < inside]
        if around:
            max(around, key=lambda unit: unit.order).doom(mark)
        else:
            self.root.marks.setdefault(one.database, mark)

    def atomic_owner(self, database: Database) -> Scope | None:
        """Give the innermost atomic block that owns the Database's transaction."""
        for scope in reversed(self.scopes):
            if scope.owns(database):
                return scope
        return None

    def refuse_control(self, database: Database, operation: str) -> None:
        """Let nobody end by hand what an atomic block owns."""
        owner = self.atomic_owner(database)
        if owner is not None:
            raise AtomicControlError(operation, owner.name)

    def in_order_of_use(self) -> list[Participant]:
        """Give the participants, the one that was used first at the front."""
        participants = self._all()
        if len(participants) > 1:
            order = {database: place for place, database in enumerate(self.used)}
            participants.sort(key=lambda one: order.get(one.database, len(order)))
        return participants

    def _all(self) -> list[Participant]:
        return list(self.participants.values())


class Place:
    """Where the running code stands: in which context, and in whose name.

    ``caller`` is the joined function that runs, None while the scope's own does.
    ``before`` is the place to go back to.
    """

    __slots__ = ("before", "caller", "context")

    def __init__(self, context: Context, caller: str | None, before: Place | None) -> None:
        self.context = context
        self.caller = caller
        self.before = before


_CURRENT: ContextVar[Place | None] = ContextVar("txkit", default=None)

current: Callable[[], Place | None] = _CURRENT.get
"""Give the place of the running code, in a context that is open or closed, or None."""

install: Callable[[Place | None], object] = _CURRENT.set
"""Make a place the current one."""


def go_back(mine: Place) -> None:
    """Leave a place; nothing to do for who stands elsewhere.

    A generator may be left before who stands inside it, and a coroutine that is
    closed (by the garbage collector, for example) runs its exits in the task that
    closes it.
    """
    here = current()
    if here is mine:
        install(mine.before)
        return
    inner = here
    while inner is not None and inner.before is not mine:
        inner = inner.before
    if inner is not None:
        inner.before = mine.before
        while here is not None and here.context.state is State.CLOSED:
            here = here.before
        install(here)


def running_context() -> Context | None:
    """Give the context of the running code if it is open."""
    place = current()
    if place is None or place.context.state is not State.OPEN:
        return None
    return place.context


def open_place(function: str) -> Place:
    """Give the current place in an open context, or say what is missing.

    Raises:
        NoContextError: there is none.
        ContextClosedError: its boundary has ended.
    """
    place = current()
    if place is None:
        raise NoContextError(function)
    if place.context.state is not State.OPEN:
        what = f"{function}()"
        raise ContextClosedError(what, place.context.name)
    return place


def _forget_in_child() -> None:
    install(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
