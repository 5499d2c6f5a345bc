"""A participant: one Database's part in a context.

It holds the session, knows the connection while a transaction is open on it,
and is asked by the guarded session before every statement and every attempt to
end the transaction: the one place that can refuse before anything is sent.
"Participant" is the word of two-phase commit.

Must not end anything itself: ``boundary`` does that.
"""

from __future__ import annotations

import logging
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InvalidRequestError

from txkit._core.context import State
from txkit._core.routing import live_bind, refuse_starvation
from txkit._core.scope import Mark, Savepoint
from txkit.database.statements import is_read
from txkit.errors import AtomicControlError, ContextClosedError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, SessionTransaction

    from txkit._core.context import Context
    from txkit.database import Database
    from txkit.database.engines import LoopEngine

log = logging.getLogger("txkit")


class Control(Enum):
    """Who may end the transaction just now."""

    USER = "the user, by hand"
    BOUNDARY = "the boundary, which is at it"
    CLOSED = "nobody, the session was closed"


class Participant:
    """A session, its Database, and the context that it belongs to (None: the user's own).

    ``points`` are the user's open savepoints, ``gone`` those of blocks that were ended
    from outside, ``broken`` is the mark of a session outside any context. ``only_read``
    holds while every statement of the transaction that came through the session was a
    plain SELECT.
    """

    __slots__ = (
        "broken",
        "connection",
        "context",
        "control",
        "database",
        "engine",
        "gone",
        "home",
        "last_used",
        "moved",
        "only_read",
        "outer",
        "points",
        "sealed_by",
        "session",
        "sync",
    )

    def __init__(
        self,
        database: Database,
        engine: LoopEngine,
        session: AsyncSession,
        context: Context | None,
        outer: Context | None,
    ) -> None:
        self.database = database
        self.engine = engine
        self.home: Engine = engine.engine.sync_engine
        self.session = session
        self.sync: Session = session.sync_session
        self.context = context
        self.outer = outer
        self.connection: Connection | None = None
        self.control = Control.USER
        self.sealed_by: str | None = None
        self.broken: Mark | None = None
        self.points: dict[SessionTransaction, Savepoint] = {}
        self.gone: set[SessionTransaction] = set()
        self.moved: dict[tuple[Engine, Engine], Engine] = {}
        self.last_used = 0
        self.only_read = True

    @property
    def name(self) -> str:
        """Who the session works for."""
        return "a session outside any context" if self.context is None else self.context.name

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or ORM changes wait to be flushed in one."""
        return self.control is not Control.CLOSED and self.sync.in_transaction()

    @property
    def has_changes(self) -> bool:
        """Whether ORM changes wait to be flushed."""
        # What flush() itself asks; new, deleted and dirty would make three sets each time.
        clean: bool = self.control is Control.CLOSED or attrgetter("_is_clean")(self.sync)()
        return not clean

    def users_savepoint(self) -> Savepoint | None:
        """Give the innermost savepoint that the user set, by ``session.begin_nested()``."""
        return next(reversed(self.points.values()), None)

    def was_used_since(self, clock: int) -> bool:
        """Whether anything was sent or is pending from after that count.

        Of changed attributes nobody tells when: what waits to be flushed counts.
        """
        return self.last_used > clock or bool(self.sync.dirty)

    def touch(self) -> None:
        """Note a use that sends nothing yet: an object was added or deleted."""
        if self.context is not None:
            self.last_used = self.context.tick()

    def route(self, bind: Engine | Connection, statement: Any) -> Engine | Connection:
        """Say where the next statement goes, or refuse it.

        Raises:
            UnexpectedRollbackError: the transaction can only be rolled back.
            ContextClosedError: the context has ended.
            PoolStarvationError: a suspended caller holds SQLite's write lock.
        """
        context = self.context
        if context is not None:
            if context.state is State.CLOSED:
                what = "a session"
                raise ContextClosedError(what, context.name)
            self.refuse_doomed()
            self.last_used = context.tick()
        if self.control is Control.CLOSED:
            message = "this session was closed: ask db_session() for the one that belongs here now"
            raise InvalidRequestError(message)
        if self.connection is None:
            refuse_starvation(self)
            self.engine = self.database.loop_engine()
            self.only_read = True
        if self.only_read and statement is not None:
            self.only_read = is_read(statement)
        return live_bind(self, bind)

    def authorize(self, operation: str, *, ends_by: str) -> None:
        """Let the user end the transaction by hand, or refuse.

        Raises:
            AtomicControlError: an atomic block owns the transaction.
            UnexpectedRollbackError: a commit of what can only be rolled back.
        """
        if self.control is not Control.USER:
            return
        if self.sealed_by is not None:
            raise AtomicControlError(operation, self.sealed_by)
        if self.context is not None:
            self.context.refuse_control(self.database, operation)
            if ends_by == "commit":
                self.refuse_broken()

    def refuse_broken(self) -> None:
        """Refuse to commit what can only be rolled back.

        Raises:
            UnexpectedRollbackError: nothing was sent.
        """
        mark = None if self.context is None else self.context.mark_on(self)
        if mark is None and not self.sync.is_active:
            mark = Mark("session.flush()", "a flush failed, and its error was swallowed")
        if mark is not None:
            raise mark.refusal(self.name, ended=False) from mark.error

    def refuse_release(self, savepoint: SessionTransaction) -> None:
        """Refuse to release a savepoint that may only be rolled back, or that a block holds.

        Which one is released is not told; one that holds a marked one is doomed as well.
        """
        mark = next((point.mark for point in self.points.values() if point.mark), None)
        if mark is not None:
            where = f"a savepoint in {self.name}"
            raise mark.refusal(where, ended=False) from mark.error
        if self._is_held(savepoint) and self.context is not None:
            self.context.refuse_control(self.database, "the release of its savepoint")

    def set_savepoint(self, transaction: SessionTransaction) -> None:
        """Note a savepoint of the user's."""
        if self.context is not None:
            self.points[transaction] = Savepoint(self.context.tick())

    def begun(self, connection: Connection) -> None:
        """Note that a transaction was begun, on this connection.

        Raises:
            ContextClosedError: another task's statement was still getting it when the
                session was closed; it is discarded.
        """
        if self.control is Control.CLOSED:
            connection.invalidate()
            what = "a statement of another task"
            raise ContextClosedError(what, self.name)
        if self.connection is None:
            self.connection = connection
            if self.context is not None:
                self.context.used.setdefault(self.database)

    def rolled_back(self, transaction: SessionTransaction) -> None:
        """Note that a savepoint or the transaction was rolled back: its mark is off."""
        by_hand = self.control is Control.USER
        if transaction.parent is not None or self.context is None:
            return
        if not by_hand or self.context.atomic_owner(self.database) is None:
            self.context.rolled_back(self.database, by_hand=by_hand)

    def ended(self, transaction: SessionTransaction) -> None:
        """Note that a savepoint or the transaction is over; by hand in a block, that dooms it."""
        is_root = transaction.parent is None
        is_held = self._is_held(transaction)
        self.points.pop(transaction, None)
        if is_held and self.control is Control.USER:
            self.gone.add(transaction)
        if self.control is Control.USER and (is_root or is_held):
            mark = Mark("the session's transaction", "it was ended by hand inside the block")
            owner = None if self.context is None else self.context.atomic_owner(self.database)
            if self.sealed_by is not None:
                self.broken = mark
            elif owner is not None and self.context is not None:
                self.context.doom_scope(owner, mark)
        if is_root:
            self.connection = None

    def ended_by_hand(self, operation: str) -> None:
        """Note that the user rolled back or closed the session himself."""
        if self.context is not None and self.control is Control.USER:
            self.context.rolled_back(self.database, by_hand=True)
        log.info("%s: rolled back (%s)", self.name, operation)

    def was_closed(self) -> None:
        """Note that the session is gone; the next ``db_session`` makes another."""
        if self.control is Control.CLOSED:
            return
        self.control = Control.CLOSED
        self.connection = None
        if self.context is not None and self.context.participants.get(self.database) is self:
            del self.context.participants[self.database]
        del self.session, self.sync  # the session points here: no cycle for the collector

    def discard(self) -> None:
        """Break the connection off, without waiting for anything."""
        connection = self.connection
        if connection is not None and not connection.closed and not connection.invalidated:
            connection.invalidate()

    def refuse_doomed(self) -> None:
        """Refuse what would be sent in a unit that may only be rolled back."""
        context = self.context
        if context is not None and context.doomed and self.control is Control.USER:
            mark = context.mark_on(self)
            if mark is not None and mark.error is not None:
                raise mark.refusal(context.name, ended=False) from mark.error

    def _is_held(self, transaction: SessionTransaction) -> bool:
        """Whether it is the savepoint of an atomic block."""
        scopes = () if self.context is None else self.context.scopes
        return any(scope.held.get(self) is transaction for scope in scopes)
