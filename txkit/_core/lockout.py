"""Break off a statement that waits for a lock of its own suspended caller.

PostgreSQL sees no deadlock in that: the caller's backend is idle. So a unit inside
another one is looked at now and then; while the same statement of its runs, the server
is asked, on a connection outside of the pool, whether it is blocked by the transaction of
a caller that waits for the unit. Then the statement is cancelled, and its error is
replaced. A lock of anybody else's is waited for.

The good path pays for a timer, and sends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy.util import greenlet_spawn

from txkit._core.control import Control
from txkit._core.notes import in_words
from txkit._core.stuck import is_stuck
from txkit._core.waiting import suspended_on
from txkit.database.blocking import ask_beside, is_at_work
from txkit.database.postgresql import DRIVER
from txkit.errors import PoolStarvationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txkit._core.participant import Participant
    from txkit.database.blocking import Server

log = logging.getLogger("txkit")

_LOOK_S = 0.75
"""Between two looks; what runs at both of them is asked about."""

_LONGEST_LOOK_S = 12.0
"""The same for a statement that was asked about in vain: each time twice as long."""

_ASK_S = 2.0
"""For the answer; then it is tried again."""

_ASKING: set[asyncio.Task[None]] = set()


def post_sentry(one: Participant) -> None:
    """Let a participant that has begun a transaction inside a caller's context be looked at."""
    if one.outer is not None and one.sentry is None and one.home.dialect.driver == DRIVER:
        one.sentry = Sentry(one)


class Sentry:
    """Looks at one participant for as long as its transaction is open.

    ``refusal`` is the error in the place of the server's, while a statement is being cancelled.
    """

    __slots__ = ("_asked", "_clock", "_one", "_pause_s", "_task", "_timer", "refusal")

    def __init__(self, one: Participant) -> None:
        self._one = ref(one)
        self._task = asyncio.current_task()
        self._clock: int | None = None
        self._asked: int | None = None
        self._pause_s = _LOOK_S
        self._timer = self._start()
        self.refusal: PoolStarvationError | None = None

    def take_refusal(self) -> PoolStarvationError | None:
        """Give the error once."""
        refusal, self.refusal = self.refusal, None
        return refusal

    def leave(self) -> None:
        """Look no longer."""
        self._timer.cancel()

    def _look(self) -> None:
        one = self._stands_by()
        if one is None:
            return
        clock, self._clock = self._clock, one.last_used if _is_at_work(one) else None
        self.refusal = None
        if clock is not None and clock == self._clock and any(self._callers(one)):
            self._clock = None
            is_again, self._asked = self._asked == clock, clock
            self._pause_s = min(2 * self._pause_s, _LONGEST_LOOK_S) if is_again else _LOOK_S
            task = asyncio.get_running_loop().create_task(
                self._ask(one), name="txkit: looking for a lock"
            )
            _ASKING.add(task)
            task.add_done_callback(_ASKING.discard)
        else:
            if clock != self._asked:
                self._pause_s = _LOOK_S
            self._look_later()

    def _look_later(self) -> None:
        if self._stands_by() is not None:
            self._timer = self._start()

    def _start(self) -> asyncio.TimerHandle:
        """Set the timer; what it runs stands in no unit's place."""
        loop = asyncio.get_running_loop()
        return loop.call_later(self._pause_s, self._look, context=Context())

    def _stands_by(self) -> Participant | None:
        one = self._one()
        stands = one is not None and one.sentry is self and one.control is not Control.CLOSED
        return one if stands else None

    async def _ask(self, one: Participant) -> None:
        pool = one.engine.engine.sync_engine.pool
        try:
            async with asyncio.timeout(_ASK_S):
                await greenlet_spawn(ask_beside, pool, self._break_off(one, one.last_used))
        except Exception as error:  # noqa: BLE001 - the server may be full; it is tried again
            log.debug("%s: asking who blocks it failed (%s)", one.name, in_words(error))
        finally:
            self._look_later()

    def _break_off(self, one: Participant, clock: int) -> Any:
        """Give what asks, and cancels: it has an answer before, so that the error finds its name."""

        async def run(server: Server) -> None:
            pid = _pid_of(one)
            callers = {_pid_of(caller): caller for caller in self._callers(one)}
            callers.pop(None, None)
            if pid is None or not callers:
                return
            blocker = await server.blocker_of(pid, list(callers))
            caller = callers.get(blocker)
            is_same = self._stands_by() is one and one.last_used == clock and _is_at_work(one)
            if caller is not None and is_same and caller in set(self._callers(one)):
                self.refusal = PoolStarvationError(
                    one.name, (caller.name,), one.database, by_rows=True
                )
                if await server.blocker_of(pid, [blocker], cancel=True) is None:
                    self.refusal = None

        return run

    def _callers(self, one: Participant) -> Iterator[Participant]:
        """Give the participants of callers that have a transaction open and wait for us."""
        task = self._task if one.context is None else one.context.user.task
        if task is None:
            return
        waiting = suspended_on({task})
        outer = one.outer
        while outer is not None:
            holder = outer.participants.get(one.database)
            if holder is not None and _may_block(holder, one) and is_stuck(outer, waiting):
                yield holder
            outer = outer.outer


def _may_block(holder: Participant, one: Participant) -> bool:
    """Whether it has a transaction open on the same server."""
    context = holder.context
    is_open = holder.connection is not None and context is not None and not context.autocommit
    return is_open and holder.engine is one.engine


def _is_at_work(one: Participant) -> bool:
    """Whether a statement of its waits for its answer, or COMMIT."""
    return one.connection is not None and (not one.sync.is_active or is_at_work(one.connection))


def _pid_of(one: Participant) -> int | None:
    connection = one.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    driver: Any = connection.connection.driver_connection
    pid: int = driver.get_server_pid()
    return pid
