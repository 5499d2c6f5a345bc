"""What a Database was told, and how an engine is made of it.

The arguments are checked when the Database is made, what the user's factories
give when they give it: an option is honoured or refused, never ignored. No
text repeats a URL or an option's value, which may hold a password.

Must not know event loops and hosts that come and go: ``engines`` and
``database`` do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from txkit.database import sqlite
from txkit.database import url as urls
from txkit.database.engines import LoopEngine
from txkit.database.watch import watch

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

EngineFactory: TypeAlias = Callable[[str | None], AsyncEngine]
SessionFactory: TypeAlias = Callable[[AsyncEngine], async_sessionmaker[Any]]

_ONE_CONNECTION = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
_PLACES = ("host", "port", "dsn")
_CHARACTERISTICS = ("isolation_level", "postgresql_readonly", "postgresql_deferrable")
_RESETS = ("rollback", True)
_CREATORS = ("creator", "async_creator")


class Target(NamedTuple):
    """Where new connections go. Compared by identity: another object is another switch."""

    url: URL | None
    host: str | None


class Recipe:
    """A URL with its engine options, or an engine factory; and a session factory."""

    def __init__(
        self,
        url: str | URL | None,
        engine_factory: EngineFactory | None,
        session_factory: SessionFactory | None,
        engine_options: dict[str, Any],
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
        self._url = None if url is None else urls.parse_url(url)
        self._engine_factory = engine_factory
        self._session_factory = session_factory or _one_shot_sessions
        self._options = engine_options
        self._made = weakref.WeakSet[Dialect]()
        if self._url is not None:
            self._check_options(self._url)

    @property
    def name(self) -> str:
        """The database's name in the URL."""
        url = self._url
        if url is None or not url.database:
            return "database"
        return Path(url.database).stem if urls.is_sqlite(url) else url.database

    def target(self, host: str | None, present: Target | None = None) -> Target:
        """Give the target for a host; ``present`` if that is the same place.

        Raises:
            TypeError: ``host`` is no text.
            ValueError: SQLite, a text that is no host, or an option decides the host.
        """
        if host is not None and not isinstance(host, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            message = f"host must be a text like 'name:port', not {type(host).__name__}"
            raise TypeError(message)
        url = self._url
        if url is None:
            return present if present is not None and present.host == host else Target(None, host)
        if host is None:
            urls.require_host(url, self._connect_args)
            return Target(url, urls.shown_host(url) or self._host_argument())
        self._refuse_fixed_host()
        url = urls.replace_host(
            url if present is None or present.url is None else present.url, host
        )
        return present if present is not None and present.url == url else Target(url, host)

    def build(self, target: Target) -> LoopEngine:
        """Make an engine; it connects nowhere yet.

        Raises:
            TypeError: the engine factory gave what can't be used.
        """
        if self._engine_factory is not None:
            engine = self._engine_factory(target.host)
            _check_engine(engine)
            if engine.dialect in self._made:
                message = (
                    "the engine_factory gave the same engine again, but every event loop, host and"
                    " process needs its own: call create_async_engine() inside the factory"
                )
                raise TypeError(message)
            self._made.add(engine.dialect)
        else:
            assert target.url is not None
            alone = _ONE_CONNECTION if urls.is_memory(target.url) else {}
            engine = create_async_engine(target.url, **(alone | self._options))
        watch(engine.sync_engine)
        if engine.dialect.name == urls.SQLITE:
            sqlite.make_transactional(engine.sync_engine)
        return LoopEngine(engine, self._session_factory(engine), target)

    @property
    def _connect_args(self) -> Mapping[str, Any]:
        return self._options.get("connect_args") or {}

    def _host_argument(self) -> str | None:
        host = self._connect_args.get("host")
        return host if isinstance(host, str) else None

    def _refuse_fixed_host(self) -> None:
        fixed = [f"connect_args[{name!r}]" for name in _PLACES if name in self._connect_args]
        fixed += [f"{name}=" for name in _CREATORS if name in self._options]
        if fixed:
            message = (
                f"{', '.join(fixed)} decides where connections go, so that no other host can be"
                " given: write the host into the URL, or use engine_factory="
            )
            raise ValueError(message)

    def _check_options(self, url: URL) -> None:
        _refuse_autocommit(self._options.get("isolation_level"))
        _refuse_fixed(self._options.get("execution_options") or {})
        if self._options.get("pool_reset_on_return", "rollback") not in _RESETS:
            message = (
                "pool_reset_on_return= must stay 'rollback': anything else would leave or commit what"
                " a unit left behind"
            )
            raise ValueError(message)
        if "pool" in self._options or self._options.get("poolclass") is StaticPool:
            message = (
                "a pool= or a StaticPool would let units share a connection, and commit each"
                " other's work: leave it out, or give another poolclass="
            )
            raise ValueError(message)
        if urls.is_memory(url) and any(
            self._options.get(name, value) != value for name, value in _ONE_CONNECTION.items()
        ):
            message = (
                "an in-memory SQLite database is one connection: leave poolclass, pool_size and"
                " max_overflow out, or use a file, sqlite:///file.db"
            )
            raise ValueError(message)


def check_session(session: Any, engine: LoopEngine, database: object) -> None:
    """Refuse a session that may go anywhere but to the one engine.

    Raises:
        TypeError: it is no AsyncSession, or bound elsewhere.
    """
    home = engine.engine.sync_engine.pool
    if isinstance(session, AsyncSession):
        binds = _binds_of(vars(session.sync_session))
        if any(isinstance(bind, Connection) for bind in binds):
            message = (
                f"the session_factory of {database!r} makes sessions that are bound to a connection,"
                " whose transaction outlives each unit's: bind them to the engine"
            )
            raise TypeError(message)
        if all(bind is not None and bind.engine.pool is home for bind in binds):
            for bind in binds:
                _refuse_autocommit(bind.get_execution_options().get("isolation_level"))
            return
        wrong = "sessions that are not bound to its engine alone"
    else:
        wrong = f"{type(session).__name__} objects instead of AsyncSession"
    message = (
        f"the session_factory of {database!r} makes {wrong}: return"
        " async_sessionmaker(engine, ...) with the engine that it is called with, without binds="
    )
    raise TypeError(message)


def _binds_of(held: dict[str, Any]) -> list[Any]:
    # binds= is kept under the one name by SQLAlchemy 2.1, and under the other by 2.0.
    own: dict[Any, Any] = held.get("binds") or held.get("_Session__binds") or {}
    return [held.get("bind"), *own.values()]


def _check_engine(engine: Any) -> None:
    if not isinstance(engine, AsyncEngine):
        message = (
            f"the engine_factory gave a {type(engine).__name__}: make it a plain function that"
            " returns create_async_engine(...)"
        )
        raise TypeError(message)
    sync = engine.sync_engine
    if isinstance(sync.pool, StaticPool):
        message = (
            "the engine_factory's engine has a StaticPool (SQLAlchemy's default in memory), which"
            " lets units commit each other's work: use a file, or give create_async_engine"
            " poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0"
        )
        raise TypeError(message)
    _refuse_autocommit(getattr(sync.dialect, "_on_connect_isolation_level", None))
    _refuse_fixed(sync.get_execution_options())


def _refuse_fixed(execution_options: Mapping[str, Any]) -> None:
    """Refuse what would win over the characteristics that a unit declares."""
    _refuse_autocommit(execution_options.get("isolation_level"))
    fixed = [option for option in _CHARACTERISTICS if option in execution_options]
    if fixed:
        message = (
            f"{', '.join(fixed)} in the engine's execution_options would win over what a unit asks"
            " for: give isolation_level= to create_engine or Database itself, and read_only= and"
            " deferrable= to @transactional"
        )
        raise ValueError(message)


def _refuse_autocommit(*levels: object) -> None:
    if any(str(level).upper() == "AUTOCOMMIT" for level in levels):
        message = (
            "isolation_level='AUTOCOMMIT' would make every transaction a fiction: leave it out"
        )
        raise ValueError(message)


def _one_shot_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, expire_on_commit=False, close_resets_only=False)
