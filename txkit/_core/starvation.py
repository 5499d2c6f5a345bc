"""Refuse to wait for a connection that can't come.

A full pool makes room when one of its connections is given back. Where each is held in a
context whose end waits, in its own task or through others, for somebody who waits for a
connection of that pool, none will be: the one who closes the circle is refused. A single
connection in other hands (a stranger's, a session's outside any context, one that is just
being opened) and everybody waits, as in SQLAlchemy. A circle may also be closed by an
``await`` later on: as long as somebody waits, it is looked for again.

An engine's pool is given a class that tells who waits: a subclass of its own one. Nothing
is computed, and nothing is kept, while the pool has room.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.pool import QueuePool
from sqlalchemy.util.concurrency import in_greenlet

from txkit._core.context import State
from txkit._core.participant import Participant
from txkit._core.place import current
from txkit._core.stuck import is_held_up, is_stuck
from txkit._core.waiting import is_suspended, suspended_on, wake_cancelled
from txkit.database.watch import watcher_of
from txkit.errors import PoolStarvationError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.pool import ConnectionPoolEntry

    from txkit.database.engines import LoopEngine

    Task: TypeAlias = asyncio.Task[Any]

_AGAIN_S = 0.1
_PAUSE = 20
"""How much longer than a look the pause before the next one is, at least: thousands may wait."""


def look_out(engine: LoopEngine) -> None:
    """Let nobody wait in vain for a connection of the engine's; does it once."""
    pool: Any = engine.engine.sync_engine.pool
    if getattr(pool, "txkit_lookout", None) is None and isinstance(pool, QueuePool):
        watched: Any = pool
        if not isinstance(pool, _Watched):
            cls: Any = pool.__class__
            watched.__class__ = _watched_class(cls)
        watched.txkit_lookout = Lookout(watched, engine)


class Lookout:
    """Who waits for a connection of one pool, in the order in which they came.

    ``waiting`` has the name of each; ``refused`` those who are on their way out.
    """

    def __init__(self, pool: Any, engine: LoopEngine) -> None:
        self._pool = pool
        self._engine = engine
        self._timer: asyncio.TimerHandle | None = None
        self.waiting: dict[Task, str] = {}
        self.refused: dict[Task, PoolStarvationError] = {}

    def enter(self, task: Task) -> None:
        """Note that a task is about to wait.

        Raises:
            PoolStarvationError: it would close a circle.
        """
        self.waiting[task] = _name_here()
        refusal = self._refusal_of(task)
        if refusal is not None:
            self.leave(task)
            raise refusal
        if self._timer is None:
            self._set_timer(_AGAIN_S)

    def leave(self, task: Task) -> None:
        """Note that a task waits no longer, however that ended."""
        self.waiting.pop(task, None)  # gone already: SQLAlchemy asks again at its timeout
        self.refused.pop(task, None)
        if not self.waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._refuse_one()
        self._set_timer(max(_AGAIN_S, _PAUSE * (loop.time() - begin)))

    def _set_timer(self, pause_s: float) -> None:
        """Look again after a pause, in nobody's place: that of the first one would live on."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(pause_s, self._look_again, context=Context())

    def _refuse_one(self) -> None:
        """Refuse who came last in a circle that was closed since; that may make room for others."""
        holders = self._holders()
        if not self.refused and holders and self._is_hopeless(holders):
            for task in reversed(list(self.waiting)):
                refusal = self._refusal_of(task)
                if refusal is not None and wake_cancelled(task):
                    self.refused[task] = refusal
                    break

    def _refusal_of(self, asking: Task) -> PoolStarvationError | None:
        """Give the error for one that waits, if it stands in a circle that nobody else can open."""
        near = suspended_on({asking})
        holders = self._holders()
        if not any(is_held_up(holder.context, near) for holder in holders):
            return None
        if not self._is_hopeless(holders, near):
            return None
        names = dict.fromkeys(holder.name for holder in holders)
        return PoolStarvationError(
            self.waiting[asking], tuple(names), holders[0].database, connections=len(holders)
        )

    def _is_hopeless(self, holders: list[Participant], near: Collection[Task] = ()) -> bool:
        """Whether no holder can end; one who waits and was cancelled, or has got one, will go on."""
        waiting = [task for task in self.waiting if is_suspended(task)]
        stuck = suspended_on([*near, *waiting])
        return all(is_stuck(holder.context, stuck) for holder in holders)

    def _holders(self) -> list[Participant]:
        """Give who holds each connection of the full pool; nobody if one has another holder."""
        if not _is_full(self._pool):
            return []
        taken: list[ConnectionPoolEntry] = [one for one in self._engine.records if one.in_use]
        if len(taken) != self._pool.checkedout():  # one is being opened, or of an earlier pool
            return []
        watchers = [watcher_of(record.info) for record in taken]
        holders = [one for one in watchers if isinstance(one, Participant) and one.context]
        return holders if len(holders) == len(taken) else []


def _is_full(pool: Any) -> bool:
    full: bool = pool._max_overflow > -1 and pool._overflow >= pool._max_overflow  # noqa: SLF001
    return full and not pool.checkedin()


def _name_here() -> str:
    place = current()
    context = None if place is None else place.context
    while context is not None and context.state is State.ASIDE:
        context = context.outer
    return "a session outside any context" if context is None else context.name


class _Watched(QueuePool):
    """A pool that knows who waits for it. Never made itself, only mixed in."""

    txkit_lookout: Lookout | None = None

    def _do_get(self) -> ConnectionPoolEntry:
        take = super()._do_get
        lookout = self.txkit_lookout
        if lookout is None or not _is_full(self) or not in_greenlet():
            return take()
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        lookout.enter(task)
        try:
            return take()
        except asyncio.CancelledError:  # nobody has asked for it where we have a refusal
            refusal = lookout.refused.get(task)
            if refusal is None or task.cancelling() > cancellations:
                raise
            raise refusal from None
        finally:
            lookout.leave(task)


@lru_cache(maxsize=64)
def _watched_class(cls: Any) -> Any:
    namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (_Watched, cls), namespace)
