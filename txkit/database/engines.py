"""One engine for each event loop, and its end.

A pool's connections belong to the loop that opened them, so every loop gets an
engine of its own, and loses it when it ends: an async generator that is left
suspended in the loop is closed by ``loop.shutdown_asyncgens()``, which
``asyncio.run`` and every runner call, and disposes the engine there. A loop
that was closed without it is noticed at the next use, in whatever loop.

A retired engine closes each connection that still comes back to it. After a
fork the child forgets its parent's engines without touching their sockets.
Must not know contexts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeAlias

from greenlet import getcurrent  # type: ignore[import-untyped]
from sqlalchemy import event

ExecutionOptions: TypeAlias = tuple[tuple[str, object], ...]

_STOP_S = 1.0
"""For aiosqlite's thread to come to its end; it is at work on nothing that anybody waits for."""

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from greenlet import greenlet
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
    from sqlalchemy.pool import ConnectionPoolEntry

    from txkit.database.recipe import Target


class LoopEngine:
    """An engine and its session factory, in one event loop, for one host.

    ``records`` are the pool's, which itself knows only those that are idle.
    """

    def __init__(
        self, engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], target: Target
    ) -> None:
        self.engine = engine
        self.sessions = sessions
        self.target = target
        self._derived: dict[tuple[Engine, ExecutionOptions], Engine] = {}
        self._is_retired = False
        self._connections = weakref.WeakSet[Any]()
        self._opening: dict[Any, greenlet] = {}
        self.records = weakref.WeakSet["ConnectionPoolEntry"]()
        # The pool's listeners keep this object for as long as a connection of it is out.
        # First and last of them: SQLAlchemy 2.0 loses a connection when one between is cancelled.
        event.listen(engine.sync_engine, "connect", self._remember, insert=True)
        event.listen(engine.sync_engine, "connect", self._opened)
        self._remember_at_once(engine.dialect)

    def derived(self, engine: Engine, options: ExecutionOptions) -> Engine:
        """Give ``engine`` with other execution options, on the same pool; always the same object."""
        key = (engine, options)
        found = self._derived.get(key)
        if found is None:
            found = self._derived[key] = engine.execution_options(**dict(options))
        return found

    async def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back; may be called again."""
        if not self._is_retired:
            self._is_retired = True
            event.listen(self.engine.sync_engine, "checkin", _close_returned)
        self._hang_up_on_lost()
        await self.engine.dispose()

    def bury(self) -> None:
        """Hang up on the server from outside: the loop is gone, or doesn't get on."""
        for connection in list(self._connections):
            hang_up(connection)
        self.engine.sync_engine.dispose(close=False)

    def _remember_at_once(self, dialect: Any) -> None:
        """Don't wait for a listener: an engine's first connections queue up for theirs."""
        connect = dialect.connect

        def connect_and_remember(*args: Any, **options: Any) -> Any:
            dbapi_connection = connect(*args, **options)
            self._remember(dbapi_connection)
            return dbapi_connection

        dialect.connect = connect_and_remember

    def _remember(self, dbapi_connection: Any, record: ConnectionPoolEntry | None = None) -> None:
        self._hang_up_on_lost()
        if record is not None:
            self.records.add(record)
        with contextlib.suppress(TypeError):  # a driver whose connections can't be weakly held
            self._connections.add(dbapi_connection.driver_connection)
            self._opening[dbapi_connection.driver_connection] = getcurrent()

    def _opened(self, dbapi_connection: Any, _record: ConnectionPoolEntry) -> None:
        self._opening.pop(dbapi_connection.driver_connection, None)

    def _hang_up_on_lost(self) -> None:
        """End what nobody is opening any more, though it was never opened: no pool knows of it."""
        for connection, opener in list(self._opening.items()):
            if opener.dead:
                del self._opening[connection]
                hang_up(connection)


class Slot:
    """What one event loop has of a Database."""

    def __init__(self) -> None:
        self.engine: LoopEngine | None = None
        self.switching = asyncio.Lock()
        self._closing = asyncio.Lock()
        self._retired = weakref.WeakSet[LoopEngine]()

    def replace(self, engine: LoopEngine | None) -> LoopEngine | None:
        """Put another engine in, and give back the one before it, to be retired."""
        before, self.engine = self.engine, engine
        if before is not None:
            self._retired.add(before)
        return before

    async def close(self) -> None:
        """Retire every engine; those too whose retirement was broken off."""
        async with self._closing:  # its second caller waits until all is closed
            for engine in self._take_all():
                await engine.retire()

    def bury(self) -> None:
        """Hang up on the server from outside: the loop is gone."""
        for engine in self._take_all():
            engine.bury()

    def _take_all(self) -> set[LoopEngine]:
        engines = set(self._retired)
        current = self.replace(None)
        return engines if current is None else engines | {current}


class LoopEngines:
    """The slots of one Database, by event loop. May be used by many threads at once."""

    def __init__(self) -> None:
        self._slots: dict[asyncio.AbstractEventLoop, Slot] = {}
        self._closers: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]] = {}
        self._lock = threading.Lock()
        _ALL.add(self)
        # Holds the engines from outside, so that the collector doesn't take them with the Database.
        weakref.finalize(self, _close_soon, self._slots, self._closers).atexit = False

    def here(self) -> Slot:
        """Give the running loop's slot, made if it is not there yet."""
        loop = asyncio.get_running_loop()
        slot = self._slots.get(loop)
        if slot is None or len(self._slots) > 1:
            with self._lock:
                self._bury_the_dead()
                if slot is None:
                    self._slots[loop] = slot = Slot()
                    self._closers[loop] = closer = _close_with_loop(slot)
                    with contextlib.suppress(StopIteration):
                        closer.__anext__().send(None)  # up to its yield, which awaits nothing
        return slot

    def forget(self) -> None:
        """Drop everything without touching it: it belongs to the parent process."""
        _INHERITED.append((self._slots.copy(), self._closers.copy()))
        self._slots.clear()
        self._closers.clear()
        self._lock = threading.Lock()  # another thread of the parent may have held it

    def _bury_the_dead(self) -> None:
        for loop in [loop for loop in self._slots if loop.is_closed()]:
            del self._closers[loop]
            self._slots.pop(loop).bury()


_ALL = weakref.WeakSet[LoopEngines]()
_INHERITED: list[object] = []
"""What a forked child got from its parent, kept so that no finalizer runs."""


async def _close_with_loop(slot: Slot) -> AsyncGenerator[None]:
    """Stay suspended until the loop shuts its generators down, or the Database is gone."""
    try:
        yield
    finally:
        await slot.close()
        _LEFT.pop(slot, None)


def _close_soon(
    slots: dict[asyncio.AbstractEventLoop, Slot],
    closers: dict[asyncio.AbstractEventLoop, AsyncGenerator[None]],
) -> None:
    """Close what a Database leaves that nobody holds any more, each part in its own loop."""
    for loop, slot in slots.items():
        _LEFT[slot] = closers[loop]
        try:
            loop.call_soon_threadsafe(_close_now, loop, slot, closers[loop])
        except RuntimeError:  # the loop is closed
            del _LEFT[slot]


def _close_now(loop: asyncio.AbstractEventLoop, slot: Slot, closer: AsyncGenerator[None]) -> None:
    task = loop.create_task(_close(slot, closer), name="txkit: closing a dropped Database")
    _CLOSING.add(task)
    task.add_done_callback(_CLOSING.discard)


async def _close(slot: Slot, closer: AsyncGenerator[None]) -> None:
    """Close the slot first: until then a loop that ends meanwhile still waits for its closer."""
    await slot.close()
    with contextlib.suppress(RuntimeError):  # the ending loop is at it
        await closer.aclose()


_LEFT: dict[Slot, AsyncGenerator[None]] = {}
"""What is still to be closed: a generator that nobody holds would be lost to an ending loop."""

_CLOSING: set[asyncio.Task[None]] = set()


def _close_returned(_dbapi_connection: object, record: ConnectionPoolEntry) -> None:
    record.close()


def hang_up(driver_connection: Any) -> None:
    """End a connection that nobody may await any more."""
    stop = getattr(driver_connection, "stop", None)  # aiosqlite: ends its thread
    if stop is not None:
        # In a thread where no loop runs: it would tie its answer to this one, which may end first.
        helper = threading.Thread(target=stop, name="txkit: stopping aiosqlite")
        helper.start()
        helper.join()
        worker = getattr(driver_connection, "_thread", None)
        if worker is not None and worker is not threading.current_thread():
            worker.join(_STOP_S)  # what it still does would be answered to a loop that is gone
        return
    transport = getattr(driver_connection, "_transport", None)  # asyncpg
    peer = None if transport is None else transport.get_extra_info("socket")
    terminate = getattr(driver_connection, "terminate", None)
    if terminate is not None:
        with contextlib.suppress(RuntimeError):  # its loop is closed
            terminate()
    if peer is not None:
        with contextlib.suppress(OSError, TypeError):  # uvloop's close() hangs up by itself
            peer.shutdown(socket.SHUT_RDWR)


def _forget_inherited() -> None:
    """Start afresh in a forked child."""
    for engines in list(_ALL):
        engines.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)
