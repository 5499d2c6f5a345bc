"""The Database: where sessions come from.

Lazy throughout: the engine is built when the first session is asked for, and
connects at the first statement. One engine per event loop and per process
(``engines``); a host can be switched under running work, as in
context-async-sqlalchemy, whose ``DBConnect`` this is the successor of.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.util import greenlet_spawn

from txkit._core.finish import complete
from txkit.database.engines import LoopEngine, LoopEngines
from txkit.database.recipe import EngineFactory, Recipe, SessionFactory, check_session

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.orm import Session

BeforeSession: TypeAlias = Callable[["Database"], Awaitable[None]]


class Database:
    """A source of sessions: an engine and a session factory, both built lazily.

    Nothing connects before the first statement. A Database may be used from any
    number of event loops and after a fork: each loop and each process gets an
    engine of its own. On SQLite transactions are made real (``BEGIN IMMEDIATE``,
    WAL, foreign keys); in memory there is one connection, which units queue for.
    asyncio only. No password is shown by ``repr``, in a log line or in an error.

    Example:
        >>> db = Database("sqlite:///app.db")
        >>> db.name
        'app'

    Args:
        url: an SQLAlchemy URL; ``postgresql://``, ``postgres://`` and
            ``sqlite://`` get their async drivers.
        host: ``"name"`` or ``"name:port"``, in the place of the URL's, also of
            several in its query.
        engine_factory: instead of ``url``: called with the host (None where there
            is none), returns a new engine each time.
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
        ValueError: a bad URL, an unknown driver, no host, an option that would make
            transactions unreal.
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
        if not 0 < finish_timeout_s < math.inf:
            message = "finish_timeout_s must be a number of seconds, more than 0"
            raise ValueError(message)
        self._recipe = Recipe(url, engine_factory, session_factory, engine_options)
        self._target = self._recipe.target(host)
        self._before_session = before_session
        self._factory_is_users = session_factory is not None
        self._name = name or self._recipe.name
        self._engines = LoopEngines()
        self.finish_timeout_s = finish_timeout_s

    @property
    def host(self) -> str | None:
        """The host that new connections go to, as it was given; None where there is none."""
        return self._target.host

    @property
    def name(self) -> str:
        """The name shown in errors and log lines."""
        return self._name

    def __repr__(self) -> str:
        """Show name and host, never a password."""
        where = "" if self.host is None else f" on {self.host}"
        return f"<Database {self._name!r}{where}>"

    async def engine(self) -> AsyncEngine:
        """Give the engine of this event loop, for ``create_all``, Alembic, instrumentation.

        Sends:
            Nothing; connects nowhere.

        Raises:
            TypeError: a factory gave what can't be used.

        Cancellation: it awaits nothing.
        """
        return self.loop_engine().engine

    async def switch_host(self, host: str) -> None:
        """Send new transactions to another host.

        The new engine is built and probed first; only then it takes the old one's
        place. Transactions that are open keep their connection and finish; the old
        pool is closed as they do. The present host: nothing happens. Concurrent
        switches in one event loop follow one another; from several, the last one
        stays. Other event loops change over at their next transaction.

        Sends:
            ``SELECT 1`` to the new host.

        Args:
            host: ``"name"`` or ``"name:port"`` (no port: the present one's); with an
                ``engine_factory`` whatever it understands.

        Raises:
            TypeError: ``host`` is no text.
            ValueError: SQLite, no host name, or an option that decides the host.
            Exception: what the new host answered; the old engine stays in place.

        Cancellation: the old engine stays in place, unless the swap was done; no
            connection is left behind.
        """
        slot = self._engines.here()
        async with slot.switching:
            target = self._recipe.target(host, self._target)
            if target is self._target:
                return
            fresh = self._recipe.build(target)
            try:
                # Not by AsyncConnection: cancelled, it leaves a task behind that closes it.
                await greenlet_spawn(_probe, fresh.engine.sync_engine)
            except BaseException:
                try:
                    await self._retire(fresh)
                finally:
                    fresh.bury()
                raise
            self._target = target
            old = slot.replace(fresh)
            if old is not None:
                await self._retire(old)

    async def close(self) -> None:
        """Close the pool of this event loop; connections in use close as they come back.

        The Database can be used again, with a new pool. Other running event loops
        keep theirs until they end.

        Sends:
            The end of each connection (for PostgreSQL a Terminate message).

        Cancellation: the pool is closed all the same.
        """
        old = self._engines.here().replace(None)
        if old is not None:
            await self._retire(old)

    async def __aenter__(self) -> Self:
        """Give the Database itself; sends nothing."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool, as ``close`` does."""
        await self.close()

    def loop_engine(self) -> LoopEngine:
        """Give the engine of this event loop, built if it is not there yet."""
        slot = self._engines.here()
        engine, target = slot.engine, self._target
        if engine is None or engine.target is not target:
            engine = self._recipe.build(target)
            old = slot.replace(engine)
            if old is not None:  # another loop has switched the host
                task = asyncio.create_task(old.retire(), name="txkit: retiring an engine")
                task.add_done_callback(_RETIRING.discard)
                _RETIRING.add(task)
        return engine

    async def new_session(self, plain_class: type[Session]) -> tuple[AsyncSession, LoopEngine]:
        """Make a session that is bound to the engine of this event loop.

        ``plain_class`` is the synchronous session below those of the default factory.

        Raises:
            TypeError: a factory gave what can't be used, or sessions bound elsewhere.
            Exception: what ``before_session`` raised; there is no session.
        """
        if self._before_session is not None:
            await self._before_session(self)
        engine = self.loop_engine()
        if not self._factory_is_users:
            return engine.sessions(sync_session_class=plain_class), engine
        session = engine.sessions()
        check_session(session, engine, self)
        return session, engine

    async def _retire(self, engine: LoopEngine) -> None:
        await complete(engine.retire(), timeout_s=self.finish_timeout_s, discard=engine.bury)


_RETIRING: set[asyncio.Task[None]] = set()


def _probe(engine: Engine) -> None:
    """Send one statement, so that a host that is no use is known before anything changes."""
    with engine.connect() as connection:
        connection.execute(select(1))
