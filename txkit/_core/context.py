"""The context: what is open between the start and the end of a boundary.

One participant (a session and its transaction) per Database, made on demand;
a stack of scopes (the context itself, then its atomic blocks); the marks of what
may only be rolled back; and, once there is one, the ledger of hooks. Shared by
everything that runs inside.

Must not send SQL: ``boundary`` does that.
"""

from __future__ import annotations

import time
from asyncio import current_task
from enum import Enum
from typing import TYPE_CHECKING

from txkit._core.hooks import Ledger
from txkit._core.scope import unfinished
from txkit._core.turn import User, current_task_or_none
from txkit.errors import AtomicControlError, ContextClosedError
from txkit.policy.characteristics import PLAIN, Characteristics

if TYPE_CHECKING:
    from txkit._core.hooks import Witness
    from txkit._core.limit import Limit
    from txkit._core.participant import Participant
    from txkit._core.scope import Mark, Savepoint, Scope
    from txkit.database import Database


class State(Enum):
    """A context is open, then it is ending, then closed, and never open again.

    While hooks run there is none; what stands in its place knows who waits for them.
    """

    OPEN = "open"
    ENDING = "being ended"
    CLOSED = "closed"
    ASIDE = "set aside"


class Context:
    """Sessions, scopes and state of one boundary.

    ``user`` is the task that uses it now, ``ended_at`` the moment of its end on the
    monotonic clock. ``clock`` counts statements, so that one can say what was used since when.
    ``asked`` are the joined calls that run and want the level of every Database
    checked which comes into use. ``preparing`` holds while hooks run before a commit.
    """

    __slots__ = (
        "asked",
        "autocommit",
        "characteristics",
        "clock",
        "doomed",
        "ended_at",
        "ledger",
        "limit",
        "name",
        "outer",
        "participants",
        "preparing",
        "root",
        "scopes",
        "state",
        "used",
        "user",
    )

    def __init__(
        self,
        root: Scope,
        outer: Context | None,
        characteristics: Characteristics = PLAIN,
        limit: Limit | None = None,
    ) -> None:
        self.characteristics = characteristics
        self.autocommit = characteristics.autocommit
        self.limit = limit
        self.ledger: Ledger | None = None
        self.asked: list[tuple[str, Characteristics]] = []
        self.name = root.name
        self.root = root
        self.outer = outer
        self.user = User(current_task())
        self.state = State.OPEN
        self.participants: dict[Database, Participant] = {}
        self.used: dict[Database, None] = {}
        self.scopes: list[Scope] = [root]
        self.clock = 0
        self.doomed = False
        self.preparing = False

    def close(self) -> None:
        """End the context and let go of everything.

        An idle connection keeps the ContextVars of the task that opened it.
        """
        self.state = State.CLOSED
        self.ended_at = time.monotonic()
        self.outer = self.ledger = None
        here, user = current_task_or_none(), self.user
        while True:  # who is still at work in it stays known: what it has joined is gone
            if user.task is not None and (user.task is here or user.task.done()):
                user.task = None
            if user.before is None:
                break
            user = user.before
        self.used.clear()
        for scope in self.scopes:
            scope.clear()

    def check_open(self, what: str) -> None:
        """Refuse who comes after the end, or in the middle of it.

        Raises:
            ContextClosedError: nothing was sent.
        """
        if self.state is State.CLOSED:
            raise ContextClosedError(what, self.name, time.monotonic() - self.ended_at)
        if self.state is State.ENDING:
            raise ContextClosedError(what, self.name, 0.0)

    @property
    def is_at_work(self) -> bool:
        """Whether something runs on one of its sessions just now."""
        return any(one.is_at_work for one in self._all())

    @property
    def is_plain(self) -> bool:
        """Whether nothing was declared for its transactions."""
        return self.characteristics is PLAIN

    def check_limit(self) -> None:
        """Raise if the time of the context is over: nothing may be committed any more.

        Raises:
            TransactionTimeoutError: nothing was rolled back yet.
        """
        if self.limit is not None:
            self.limit.check()

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

    def doom_unfinished(self) -> None:
        """Mark the context if a block in it is not finished: a stream's, which nobody closed."""
        if len(self.scopes) > 1:
            self.doom_scope(self.root, unfinished(self.scopes[-1].name))

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
        return self.root.mark_on(one.database) or one.broken_mark()

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
        marks += [mark for one in everyone if (mark := one.broken_mark()) is not None]
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
        """Give the innermost atomic block that owns the Database's transaction.

        While hooks run before a commit, what is about to be committed owns it.
        """
        for scope in reversed(self.scopes):
            if scope.owns(database):
                return scope
        return self.root if self.preparing else None

    def refuse_control(self, database: Database, operation: str) -> None:
        """Let nobody end by hand what an atomic block owns."""
        owner = self.atomic_owner(database)
        if owner is not None:
            raise AtomicControlError(operation, owner.name, in_hook=not owner.owns(database))

    def in_order_of_use(self) -> list[Participant]:
        """Give the participants, the one that was used first at the front."""
        participants = self._all()
        if len(participants) > 1:
            order = {database: place for place, database in enumerate(self.used)}
            participants.sort(key=lambda one: order.get(one.database, len(order)))
        return participants

    def _all(self) -> list[Participant]:
        return list(self.participants.values())

    def innermost(self, before: int | None = None) -> Scope | Savepoint:
        """Give the unit that was opened last, of those opened before a count."""
        units: list[Scope | Savepoint] = [*self.scopes]
        for one in self._all():
            units += one.points.values()
        if before is not None:
            units = [unit for unit in units if unit.order < before or unit is self.root]
        return max(units, key=lambda unit: unit.order)

    def witnesses(self) -> list[Witness]:
        """Give the transactions that are open, for hooks to remember."""
        if self.autocommit:
            return []
        return [one.witnessed() for one in self._all() if one.in_transaction]

    def hooks(self) -> Ledger:
        """Give the ledger, made with the first hook."""
        if self.ledger is None:
            self.ledger = Ledger(self.root)
        return self.ledger
