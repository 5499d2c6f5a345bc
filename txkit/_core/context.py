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
import sys
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING

from txkit.errors import AtomicControlError, ContextClosedError, NoContextError

if TYPE_CHECKING:
    from collections.abc import Callable

    from txkit._core.participant import Participant
    from txkit._core.scope import Mark, Scope
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

    def doom(self, mark: Mark, *, since: int) -> None:
        """Mark what a joined call belonged to rollback-only.

        That is the innermost savepoint of the user's, else the innermost atomic
        block, else the transactions that are open in the context; and, of the other
        Databases, each one that the call used (after ``since``).
        """
        self.doomed = True
        around = [(one, point) for one in self._all() if (point := one.users_savepoint())]
        for one, point in around:
            one.marks.setdefault(point, mark)
        if not around:
            self.doom_scope(self.scopes[-1], mark)
        for one in self._all():
            if one.last_used > since and self.mark_on(one) is None:
                owner = self.atomic_owner(one.database)
                if owner is None or owner is self.root:
                    self.root.marks[one.database] = mark
                else:
                    owner.mark = mark

    def doom_scope(self, scope: Scope, mark: Mark) -> None:
        """Mark a whole scope; the first mark stays, but for what the unit asks itself."""
        self.doomed = True
        opened = [one.database for one in self._all() if one.in_transaction]
        if scope is not self.root or not opened:
            if scope.mark is None or mark.own:
                scope.mark = mark
            return
        for database in opened:
            if database not in scope.marks or mark.own:
                scope.marks[database] = mark

    def doom_around(self, scope: Scope, ended: list[Participant], mark: Mark) -> None:
        """Mark what encloses a scope, for the participants whose work it can't undo any more."""
        for one in ended:
            self.doomed = True
            outer = self.scopes[: self.scopes.index(scope)]
            owner = next((other for other in reversed(outer) if other.owns(one.database)), None)
            if owner is None or owner is self.root:
                self.root.marks.setdefault(one.database, mark)
            elif owner.mark is None:
                owner.mark = mark

    def doom_all(self, mark: Mark) -> None:
        """Mark every scope: a connection is gone, and with it what all of them did on it."""
        self.doomed = True
        for scope in self.scopes:
            scope.mark = scope.mark or mark

    def mark_on(self, one: Participant) -> Mark | None:
        """Give the mark that dooms what the participant does now, innermost first."""
        if not self.doomed:
            return None
        for point in one.savepoints() if one.marks else ():
            if point in one.marks:
                return one.marks[point]
        for scope in reversed(self.scopes[1:]):
            if scope.mark is not None and scope.owns(one.database):
                return scope.mark
        return self.root.mark or self.root.marks.get(one.database)

    def rolled_back(self, database: Database, *, by_hand: bool) -> None:
        """Take the mark off a transaction that was rolled back: it is mended."""
        self.root.marks.pop(database, None)
        if by_hand:
            self.root.mark = None

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
    """

    __slots__ = ("caller", "context")

    def __init__(self, context: Context, caller: str | None = None) -> None:
        self.context = context
        self.caller = caller


_CURRENT: ContextVar[Place | None] = ContextVar("txkit", default=None)

current: Callable[[], Place | None] = _CURRENT.get
"""Give the place of the running code, in a context that is open or closed, or None."""

install: Callable[[Place | None], object] = _CURRENT.set
"""Make a place the current one."""


def go_back(mine: Place, before: Place | None) -> None:
    """Leave a place, unless a coroutine is being closed by somebody who stands elsewhere.

    The garbage collector, for example, closes it in whatever task runs just then.
    """
    if current() is mine or not isinstance(sys.exc_info()[1], GeneratorExit):
        install(before)


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
