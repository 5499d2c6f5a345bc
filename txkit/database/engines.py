"""One engine for each event loop, and its end.

A pool's connections belong to the loop that opened them, so every loop gets an
engine of its own, and loses it when it ends: an async generator that is left
suspended in the loop is closed by ``loop.shutdown_asyncgens()``, which
``asyncio.run`` and every runner call, and disposes the engine there. A loop
that was closed without it is noticed when the next engine is built.

A retired engine closes each connection that still comes back to it. After a
fork the child forgets its parent's engines without touching their sockets.
Must not know contexts.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.pool import ConnectionPoolEntry


class LoopEngine:
    """An engine and its session factory, in one event loop, for one host."""

    def __init__(
        self, engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], generation: int
    ) -> None:
        self.engine = engine
        self.sessions = sessions
        self.generation = generation
        self._connections = weakref.WeakSet[Any]()
        event.listen(engine.sync_engine, "connect", self._remember)

    async def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        pool = self.engine.sync_engine.pool
        if not event.contains(pool, "checkin", _close_returned):
            event.listen(pool, "checkin", _close_returned)
        event.remove(self.engine.sync_engine, "connect", self._remember)
        await self.engine.dispose()

    def bury(self) -> None:
        """Hang up on the server from outside: the loop is gone."""
        for connection in list(self._connections):
            _hang_up(connection)
        self.engine.sync_engine.dispose(close=False)

    def _remember(self, dbapi_connection: Any, _record: ConnectionPoolEntry) -> None:
        with contextlib.suppress(TypeError):  # a driver whose connections can't be weakly held
            self._connections.add(dbapi_connection.driver_connection)


class LoopEngines:
    """The engines of one Database, by event loop."""

    def __init__(self) -> None:
        self._engines: dict[asyncio.AbstractEventLoop, LoopEngine] = {}
        self._closers: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]] = {}
        _ALL.add(self)

    def get(self, loop: asyncio.AbstractEventLoop) -> LoopEngine | None:
        """Give the engine of ``loop``, if it has one."""
        return self._engines.get(loop)

    def put(self, loop: asyncio.AbstractEventLoop, engine: LoopEngine) -> LoopEngine | None:
        """Make ``engine`` the one of ``loop``, and give back the one before it."""
        self._bury_the_dead()
        before = self._engines.get(loop)
        self._engines[loop] = engine
        if loop not in self._closers:
            self._closers[loop] = closer = _close_with_loop(weakref.ref(self), loop)
            with contextlib.suppress(StopIteration):
                closer.__anext__().send(None)  # up to its yield, which awaits nothing
        return before

    def pop(self, loop: asyncio.AbstractEventLoop) -> LoopEngine | None:
        """Forget the engine of ``loop``, and give it back to be retired."""
        self._bury_the_dead()
        return self._engines.pop(loop, None)

    def pop_for_good(self, loop: asyncio.AbstractEventLoop) -> LoopEngine | None:
        """Forget all about ``loop``, which is ending."""
        self._closers.pop(loop, None)
        return self.pop(loop)

    def forget(self) -> None:
        """Drop everything without touching it: it belongs to the parent process."""
        _INHERITED.append((self._engines, self._closers))
        self._engines = {}
        self._closers = {}

    def _bury_the_dead(self) -> None:
        for loop in [loop for loop in self._closers if loop.is_closed()]:
            del self._closers[loop]
            engine = self._engines.pop(loop, None)
            if engine is not None:
                engine.bury()


_ALL = weakref.WeakSet[LoopEngines]()
_INHERITED: list[object] = []
"""What a forked child got from its parent, kept so that no finalizer runs."""


def forget_inherited() -> None:
    """Start afresh in a forked child."""
    for engines in list(_ALL):
        engines.forget()


async def _close_with_loop(
    engines_ref: weakref.ref[LoopEngines], loop: asyncio.AbstractEventLoop
) -> AsyncGenerator[None]:
    """Stay suspended until the loop shuts its generators down."""
    try:
        yield
    finally:
        engines = engines_ref()
        engine = None if engines is None else engines.pop_for_good(loop)
        if engine is not None:
            await engine.retire()


def _close_returned(_dbapi_connection: object, record: ConnectionPoolEntry) -> None:
    record.close()


def _hang_up(driver_connection: Any) -> None:
    """End a connection whose loop is closed, so that nothing can be awaited."""
    stop = getattr(driver_connection, "stop", None)  # aiosqlite: ends its thread
    if stop is not None:
        stop()
        return
    transport = getattr(driver_connection, "_transport", None)  # asyncpg
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is not None:
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
