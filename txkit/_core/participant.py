"""A participant: one Database's part in a context.

It holds the session, knows the connection while a transaction is open on it,
and is asked by the guarded session before every statement and every attempt to
end the transaction: the one place that can refuse before anything is sent.
"Participant" is the word of two-phase commit.

Must not end anything itself: ``boundary`` does that.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from sqlalchemy.exc import InvalidRequestError

from txkit._core.context import State
from txkit.database.url import SQLITE
from txkit.errors import (
    AtomicControlError,
    ContextClosedError,
    PoolStarvationError,
    UnexpectedRollbackError,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from txkit._core.context import Context
    from txkit.database import Database
    from txkit.database.engines import LoopEngine


class Control(Enum):
    """Who may end the transaction just now."""

    USER = "the user, by hand"
    BOUNDARY = "the boundary, which is at it"
    CLOSED = "nobody, the session was closed"


class Participant:
    """A session, its Database, and the context that it belongs to (None: the user's own)."""

    __slots__ = (
        "connection",
        "context",
        "control",
        "database",
        "engine",
        "home",
        "outer",
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
        sync = self.sync
        return bool(sync.new or sync.deleted or sync.dirty)

    def route(self, bind: Engine | Connection) -> Engine | Connection:
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
            self._refuse_doomed(context, statement=True)
        if self.control is Control.CLOSED:
            message = "this session was closed: ask db_session() for the one that belongs here now"
            raise InvalidRequestError(message)
        if self.connection is None:
            self._refuse_starvation()
            self.engine = self.database.loop_engine()
        if bind is self.home:
            return self.engine.engine.sync_engine
        if bind.engine.pool is not self.home.pool:
            message = (
                f"a session of {self.database!r} was routed to another engine: each Database has"
                " one; make a Database for the other engine, and drop binds= and get_bind()"
            )
            raise TypeError(message)
        return bind

    def begun(self, connection: Connection) -> None:
        """Note that a transaction was begun, on this connection."""
        if self.connection is None:
            self.connection = connection
            if self.context is not None:
                self.context.used.setdefault(self.database)

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
        context = self.context
        if context is None:
            return
        context.refuse_control(self.database, operation)
        if ends_by == "commit":
            self._refuse_doomed(context, statement=False)

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

    def _refuse_doomed(self, context: Context, *, statement: bool) -> None:
        mark = context.mark_on(self.database)
        if mark is None or (statement and mark.error is None):
            return
        raise UnexpectedRollbackError(
            context.name, mark.culprit, mark.reason, ended=False
        ) from mark.error

    def _refuse_starvation(self) -> None:
        if self.home.dialect.name != SQLITE:
            return
        outer = self.outer
        while outer is not None:
            holder = outer.participants.get(self.database)
            if outer.state is State.OPEN and holder is not None and holder.connection is not None:
                raise PoolStarvationError(self.name, outer.name, self.database)
            outer = outer.outer
