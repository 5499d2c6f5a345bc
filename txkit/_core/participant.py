"""A participant: one Database's part in a context.

It holds the session, knows the connection while a transaction is open on it, and
is told what becomes of both: begun, failed, rolled back, ended. "Participant" is
the word of two-phase commit.

Must not end anything itself (``boundary`` does that), nor refuse (``permission``).
"""

from __future__ import annotations

import asyncio
import logging
from operator import attrgetter
from typing import TYPE_CHECKING

from txkit._core.breakable import Breakable
from txkit._core.control import Control
from txkit._core.finish import cancel_later, cancellations
from txkit._core.hooks import Outcome, Witness
from txkit._core.routing import options_of
from txkit._core.scope import Mark, Savepoint
from txkit.database.blocking import is_at_work
from txkit.database.engines import hang_up
from txkit.database.postgresql import READ_WRITE, limits, send_with_begin
from txkit.database.sqlite import interrupt
from txkit.database.url import POSTGRESQL
from txkit.database.watch import follow
from txkit.errors import ContextClosedError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import SessionTransaction

    from txkit._core.context import Context
    from txkit.database import Database
    from txkit.database.engines import LoopEngine

log = logging.getLogger("txkit")


class Participant(Breakable):
    """A session, its Database, and the context that it belongs to (None: the user's own).

    ``points`` are the user's open savepoints, ``gone`` those of blocks that were ended
    from outside. ``cancellations`` are the task's before it waited for the connection,
    ``is_explicit`` holds while a ``session.begin()`` is open. ``sealed_by``, ``tampered``: of
    a session outside any context that the user may not end. ``only_read``: every statement
    of the transaction that came through the session was a plain SELECT. ``has_committed``,
    ``has_lost`` (ORM changes never sent) and ``in_doubt`` tell of an end that is reported.
    """

    __slots__ = (
        "__weakref__",
        "cancellations",
        "commits",
        "database",
        "engine",
        "gone",
        "has_committed",
        "has_lost",
        "home",
        "in_doubt",
        "is_explicit",
        "last_used",
        "moved",
        "only_read",
        "options",
        "outer",
        "points",
        "released",
        "sealed_by",
        "session",
        "tampered",
        "witness",
    )

    def __init__(
        self,
        database: Database,
        engine: LoopEngine,
        session: AsyncSession,
        context: Context | None,
        outer: Context | None,
    ) -> None:
        super().__init__(session.sync_session, context)
        self.database = database
        self.engine = engine
        self.home: Engine = engine.engine.sync_engine
        self.options = options_of(context, self.home)
        self.session = session
        self.outer = outer
        self.sealed_by: str | None = None
        self.tampered: Mark | None = None
        self.points: dict[SessionTransaction, Savepoint] = {}
        self.gone: set[SessionTransaction] = set()
        self.released: SessionTransaction | None = None
        self.has_committed = self.has_lost = self.in_doubt = False
        self.is_explicit = False
        self.commits = 0
        self.cancellations = 0
        self.witness: Witness | None = None
        self.moved: dict[tuple[Engine, Engine], Engine] = {}
        self.last_used = 0
        self.only_read = True

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, or ORM changes wait to be flushed in one."""
        return self.control is not Control.CLOSED and self.sync.in_transaction()

    @property
    def is_at_work(self) -> bool:
        """Whether a statement of its is running, or its BEGIN, or an end."""
        if self.control is not Control.USER:
            return self.control is Control.BOUNDARY
        if self.connection is not None and is_at_work(self.connection):
            return True
        transaction = attrgetter("_transaction")(self.sync)
        while transaction is not None and getattr(transaction, "_current_fn", None) is None:
            transaction = transaction.parent
        return transaction is not None

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

    def witnessed(self) -> Witness:
        """Give the open transaction's witness, made for the first hook that remembers it."""
        if self.witness is None:
            self.witness = Witness()
        return self.witness

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
            follow(connection, self)
            if cancellations() > self.cancellations:
                # One came with the connection: wait_for of Python 3.11 has kept it to itself.
                cancel_later()
            context = self.context
            if context is not None:
                context.used.setdefault(self.database)
                if not context.is_plain or context.limit is not None:
                    self._set_up(connection, context)

    def rolling_back(self) -> None:
        """Note that all is about to be rolled back, and what was never sent with it."""
        self.has_lost = self.has_changes

    def rolled_back(self, transaction: SessionTransaction) -> None:
        """Note that a savepoint or the transaction was rolled back: its mark is off."""
        by_hand = self.control is Control.USER
        if transaction.parent is not None or self.context is None:
            return
        if not by_hand or self.context.atomic_owner(self.database) is None:
            self.context.rolled_back(self.database, by_hand=by_hand)

    def committed(self) -> None:
        """Note that the innermost savepoint was released, or the transaction committed."""
        is_nested = self.sync.in_nested_transaction()
        self.released = self.sync.get_nested_transaction() if is_nested else None
        self.has_committed = not is_nested
        self.commits += self.has_committed

    def ended(self, transaction: SessionTransaction) -> None:
        """Note that a savepoint or the transaction is over; by hand in a block, that dooms it."""
        is_root = transaction.parent is None
        is_held = self.is_held(transaction)
        point = self.points.pop(transaction, None)
        if point is not None:
            self._point_ended(point, was_released=self.released is transaction)
        if is_held and self.control is Control.USER:
            self.gone.add(transaction)
        if self.control is Control.USER and (is_root or is_held):
            reason = "it was ended by hand inside the block"
            mark = Mark("the session's transaction", reason, final=True)
            owner = None if self.context is None else self.context.atomic_owner(self.database)
            if self.sealed_by is not None:
                self.tampered = mark
            elif owner is not None and self.context is not None:
                self.context.doom_scope(owner, mark)
        if is_root:
            self._transaction_ended()

    def was_dropped(self) -> None:
        """Note that the session has let go of its transaction without telling, for it broke."""
        if self.connection is not None and not self.sync.in_transaction():
            self.discard()
            self._transaction_ended()

    def ended_by_hand(self, operation: str, *, was_open: bool) -> None:
        """Note that the user rolled back or closed the session himself."""
        if self.context is not None and self.control is Control.USER:
            self.context.rolled_back(self.database, by_hand=True)
        if was_open:
            log.info("%s: rolled back (%s)", self.name, operation)

    def was_closed(self) -> None:
        """Note that the session is gone; the next ``db_session`` makes another."""
        if self.control is Control.CLOSED:
            return
        self.control = Control.CLOSED
        self.connection = self.failure = self.last_mark = None
        self.mended()
        if self.context is not None and self.context.participants.get(self.database) is self:
            del self.context.participants[self.database]
        del self.session, self.sync  # the session points here: no cycle for the collector

    def discard(self) -> None:
        """Break the connection off, without waiting for anything."""
        connection = self.connection
        if connection is not None and not connection.closed and not connection.invalidated:
            driver = connection.connection.driver_connection
            interrupt(connection)
            connection.invalidate()
            if not connection.dialect.has_terminate:  # it was left open: aiosqlite's, up to 2.0.41
                hang_up(driver)

    def is_held(self, transaction: SessionTransaction) -> bool:
        """Whether it is the savepoint of an atomic block."""
        scopes = () if self.context is None else self.context.scopes
        return any(scope.held.get(self) is transaction for scope in scopes)

    def _set_up(self, connection: Connection, context: Context) -> None:
        """Send along with BEGIN what execution options can't say."""
        if connection.dialect.name != POSTGRESQL or context.autocommit:
            return
        settings = [READ_WRITE] if context.characteristics.read_only is False else []
        if context.limit is not None:
            left_s = context.limit.deadline - asyncio.get_running_loop().time()
            settings.append(limits(left_s))
        if settings:
            send_with_begin(connection, *settings)

    def _point_ended(self, point: Savepoint, *, was_released: bool) -> None:
        context = self.context
        if context is not None and context.ledger is not None:
            if was_released:
                around = context.innermost(point.order)
                context.ledger.hand_over(point, around, context.witnesses())
            else:
                context.ledger.settle(point, Outcome.ROLLED_BACK)

    def _transaction_ended(self) -> None:
        """Forget the transaction, and tell those who wait for its end."""
        context = self.context
        if context is not None and context.ledger is not None:
            outcome = Outcome.COMMITTED if self.has_committed else Outcome.ROLLED_BACK
            was_sent = self.connection is not None
            if self.in_doubt or (context.autocommit and was_sent and not self.has_committed):
                outcome = Outcome.UNKNOWN
            owner = context.atomic_owner(self.database)
            witness, self.witness = self.witness, None
            was_used = was_sent or self.has_lost
            context.ledger.transaction_ended(
                witness, outcome, was_used=was_used, by_hand=owner is None
            )
        if self.sentry is not None:
            self.sentry.leave()
            self.sentry = None
        self.connection = self.failure = self.last_mark = None
        self.has_committed = self.has_lost = self.in_doubt = False
        self.is_explicit = False
        self.mended()
