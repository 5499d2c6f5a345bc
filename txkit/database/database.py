"""The Database: where sessions come from.

Lazy throughout: the engine is built when the first session is asked for, and
connects at the first statement. One engine per event loop and per process
(``engines``); a host can be switched under running work, as in
context-async-sqlalchemy, whose ``DBConnect`` this is the successor of.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from txkit._core.finish import complete
from txkit.database import sqlite, url as urls
from txkit.database.engines import LoopEngine, LoopEngines, forget_inherited

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy.engine import URL

EngineFactory: TypeAlias = Callable[[str | None], AsyncEngine]
SessionFactory: TypeAlias = Callable[[AsyncEngine], async_sessionmaker[Any]]
BeforeSession: TypeAlias = Callable[["Database"], Awaitable[None]]


class Database:
    """A source of sessions: an engine and a session factory, both built lazily.

    Nothing connects before the first statement. A Database may be used from any
    number of event loops and after a fork: each loop and each process gets an
    engine of its own. On SQLite transactions are made real (``BEGIN IMMEDIATE``,
    WAL, foreign keys). asyncio only. No password is shown by ``repr``, in a log
    line or in an error.

    Example:
        >>> db = Database("sqlite:///app.db")
        >>> db.name
        'app'

    Args:
        url: an SQLAlchemy URL; ``postgresql://``, ``postgres://`` and
            ``sqlite://`` get their async drivers.
        host: ``"name"`` or ``"name:port"``, in the place of the URL's.
        engine_factory: instead of ``url``: called with the host (None where there
            is none), returns the engine.
        session_factory: called with the engine, returns an ``async_sessionmaker``
            whose sessions are bound to that engine. None: one-shot sessions that
            keep their objects after a commit (``expire_on_commit=False``,
            ``close_resets_only=False``).
        before_session: awaited with this Database before every new session; may
            call ``switch_host``.
        name: shown in errors; None: the database's name in the URL.
        finish_timeout_s: seconds that a commit, rollback or close may still take
            once its task was cancelled; then the connection is discarded.
        **engine_options: for ``create_async_engine``.

    Raises:
        TypeError: arguments that don't go together.
        ValueError: a bad URL, an unknown driver, no host.
        ModuleNotFoundError: SQLite without aiosqlite.
    """

    def __init__(
        self,
        url: str | URL | None = None,
        *,
        host: str | None = None,
        engine_factory: EngineFactory | None = None,
        session_factory: SessionFactory | None = None,
        before_session: BeforeSession | None = None,
        name: str | None = None,
        finish_timeout_s: float = 10.0,
        **engine_options: Any,
    ) -> None:
        if (url is None) == (engine_factory is None):
            message = "give Database either a url or an engine_factory"
            raise TypeError(message)
        if engine_factory is not None and engine_options:
            message = (
                f"engine options ({', '.join(engine_options)}) go with a url; an engine_factory"
                " gives them to create_async_engine itself"
            )
            raise TypeError(message)
        if str(engine_options.get("isolation_level", "")).upper() == "AUTOCOMMIT":
            message = "isolation_level='AUTOCOMMIT' would make every transaction a fiction: leave it out"
            raise ValueError(message)
        if finish_timeout_s <= 0:
            message = "finish_timeout_s must be more than 0 seconds"
            raise ValueError(message)
        self._url = None if url is None else urls.parse_url(url)
        self._host = host
        if self._url is not None:
            if host is not None:
                self._url = urls.replace_host(self._url, host)
            urls.require_host(self._url, engine_options.get("connect_args"))
            self._host = urls.shown_host(self._url)
        self._engine_factory = engine_factory
        self._session_factory = session_factory or _one_shot_sessions
        self._before_session = before_session
        self._engine_options = engine_options
        self._name = name or _name_of(self._url)
        self._generation = 0
        self._engines = LoopEngines()
        self._switching: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
        self._swap = threading.Lock()
        self.finish_timeout_s = finish_timeout_s

    @property
    def host(self) -> str | None:
        """The host that new connections go to, None where there is none."""
        return self._host

    @property
    def name(self) -> str:
        """The name shown in errors and log lines."""
        return self._name

    def __repr__(self) -> str:
        """Show name and host, never a password."""
        where = "" if self._host is None else f" on {self._host}"
        return f"<Database {self._name!r}{where}>"

    async def engine(self) -> AsyncEngine:
        """Give the engine of this event loop, for ``create_all``, Alembic, instrumentation.

        Sends nothing; connects nowhere.
        """
        return self.loop_engine().engine

    async def switch_host(self, host: str) -> None:
        """Send new transactions to another host.

        The new engine is built and probed first; only then it takes the old one's
        place. Transactions that are open keep their connection and finish; the old
        pool is closed as they do. The present host: nothing happens. Concurrent
        switches follow one another. Other event loops change over at their next
        transaction.

        Sends:
            ``SELECT 1`` to the new host.

        Args:
            host: ``"name"`` or ``"name:port"``; with an ``engine_factory`` whatever
                it understands.

        Raises:
            ValueError: SQLite, or no host name.
            Exception: what the new host answered; the old engine stays in place.

        Cancellation: the old engine stays in place, unless the swap was done.
        """
        loop = asyncio.get_running_loop()
        for other in [other for other in self._switching if other.is_closed()]:
            del self._switching[other]
        async with self._switching.setdefault(loop, asyncio.Lock()):
            url = None if self._url is None else urls.replace_host(self._url, host)
            shown = host if url is None else urls.shown_host(url)
            if shown == self._host:
                return
            fresh = self._build(url, shown, self._generation + 1)
            try:
                async with fresh.engine.connect() as connection:
                    await connection.execute(select(1))
            except BaseException:
                await self._complete(fresh)
                raise
            with self._swap:
                self._url, self._host = url, shown
                self._generation += 1
                fresh.generation = self._generation
                old = self._engines.put(loop, fresh)
            if old is not None and old.engine is not fresh.engine:
                await self._complete(old)

    async def close(self) -> None:
        """Close the pool of this event loop; connections in use close as they come back.

        The Database can be used again, with a new pool. Other running event loops
        keep theirs until they end.
        """
        engine = self._engines.pop(asyncio.get_running_loop())
        if engine is not None:
            await self._complete(engine)

    async def __aenter__(self) -> Self:
        """Give the Database itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool."""
        await self.close()

    @property
    def is_sqlite(self) -> bool:
        """Whether the engine of this event loop speaks SQLite."""
        if self._url is not None:
            return self._url.get_backend_name() == urls.SQLITE
        return self.loop_engine().engine.dialect.name == urls.SQLITE

    def loop_engine(self) -> LoopEngine:
        """Give the engine of this event loop, built if it is not there yet."""
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None or engine.generation != self._generation:
            engine = self._build(self._url, self._host, self._generation)
            old = self._engines.put(loop, engine)
            if old is not None and old.engine is not engine.engine:
                task = loop.create_task(old.retire(), name="txkit: retiring an engine")
                task.add_done_callback(_RETIRING.discard)
                _RETIRING.add(task)
        return engine

    async def new_session(self) -> tuple[AsyncSession, LoopEngine]:
        """Make a session that is bound to the engine of this event loop.

        Raises:
            TypeError: the session factory's sessions are bound elsewhere.
        """
        if self._before_session is not None:
            await self._before_session(self)
        engine = self.loop_engine()
        session = engine.sessions()
        if not _is_bound_to(session, engine.engine):
            message = (
                f"the session_factory of {self!r} makes sessions that are not bound to its engine"
                " alone: pass the engine that it is called with as bind, without binds="
            )
            raise TypeError(message)
        return session, engine

    def _build(self, url: URL | None, host: str | None, generation: int) -> LoopEngine:
        if self._engine_factory is not None:
            engine = self._engine_factory(host)
        else:
            assert url is not None
            options = dict(self._engine_options)
            if url.get_backend_name() == urls.SQLITE and urls.is_memory(url):
                # One connection that is never closed; units queue for it, so they stay isolated.
                options = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0} | options
            engine = create_async_engine(url, **options)
        if engine.dialect.name == urls.SQLITE:
            sqlite.make_transactional(engine.sync_engine)
        return LoopEngine(engine, self._session_factory(engine), generation)

    async def _complete(self, engine: LoopEngine) -> None:
        await complete(engine.retire(), timeout_s=self.finish_timeout_s, discard=engine.bury)


_RETIRING: set[asyncio.Task[None]] = set()


def _one_shot_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, expire_on_commit=False, close_resets_only=False)


def _is_bound_to(session: AsyncSession, engine: AsyncEngine) -> bool:
    bind = session.sync_session.bind
    return bind is not None and bind.engine.pool is engine.sync_engine.pool


def _name_of(url: URL | None) -> str:
    if url is None or not url.database:
        return "database"
    if url.get_backend_name() == urls.SQLITE:
        return Path(url.database).stem
    return url.database


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_inherited)
