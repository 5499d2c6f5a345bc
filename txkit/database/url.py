"""Turn what the user wrote into a URL that SQLAlchemy's asyncio can use.

Every refusal says what to write instead, and none of them repeats the URL's
text: a URL that could not be parsed may hold a password anywhere. A password
in the query is moved to the place that SQLAlchemy hides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module

from sqlalchemy.engine import URL, make_url

POSTGRESQL = "postgresql"
SQLITE = "sqlite"

_ASYNC_DRIVERS = {POSTGRESQL: "asyncpg", SQLITE: "aiosqlite"}
_SHAPES = "postgresql://user:password@host:5432/name or sqlite:///file.db"
_LAST_PORT = 65535
_HOST = re.compile(
    r"(\[(?P<address>[^\[\]@/\s,]+)\]|(?P<name>[^\[\]@/\s,:]+))(:(?P<port>[0-9]{1,5}))?"
)
_BARE_ADDRESS = re.compile(r"[^\[\]@/\s,]*:[^\[\]@/\s,]*:[^\[\]@/\s,]*")


def parse_url(url: str | URL) -> URL:
    """Parse a URL and give it its async driver.

    Raises:
        TypeError: neither a text nor a URL.
        ValueError: no URL, an unknown backend or driver, no host.
        ModuleNotFoundError: SQLite without aiosqlite.
    """
    parsed = _parse(url)
    backend, _, driver = parsed.drivername.partition("+")
    backend = POSTGRESQL if backend == "postgres" else backend
    known = _ASYNC_DRIVERS.get(backend)
    if known is None:
        message = (
            f"no database backend {backend!r} here: txkit speaks PostgreSQL (asyncpg) and SQLite"
            f" (aiosqlite); write {_SHAPES}"
        )
        raise ValueError(message)
    if driver not in {"", known}:
        message = (
            f"the driver {driver!r} can't be used: write {backend}:// or {backend}+{known}://"
            " (another async driver can be had through engine_factory=, without our promises)"
        )
        raise ValueError(message)
    parsed = parsed.set(drivername=f"{backend}+{known}")
    return _sqlite_url(parsed) if backend == SQLITE else _postgresql_url(parsed)


def is_sqlite(url: URL) -> bool:
    """Whether the URL is SQLite's."""
    return url.get_backend_name() == SQLITE


def is_memory(url: URL) -> bool:
    """Whether the URL names a SQLite database that lives in memory."""
    name = url.database
    return is_sqlite(url) and (not name or ":memory:" in name or url.query.get("mode") == "memory")


def replace_host(url: URL, host: str) -> URL:
    """Put ``host`` or ``host:port`` in the place of the URL's.

    Raises:
        ValueError: SQLite, or a text that is no host.
    """
    if is_sqlite(url):
        message = "SQLite has no host: leave host= out, or give a postgresql:// URL"
        raise ValueError(message)
    name, port = _split_host(host)
    query = {key: value for key, value in url.query.items() if key not in {"host", "port"}}
    return url.set(host=name, port=url.port if port is None else port, query=query)


def require_host(url: URL, connect_args: Mapping[str, object]) -> None:
    """Refuse a PostgreSQL URL that leaves the host to chance.

    Raises:
        ValueError: no host anywhere.
    """
    if is_sqlite(url) or url.host or "host" in url.query:
        return
    if "host" in connect_args or "dsn" in connect_args or "PGHOST" in os.environ:
        return
    message = (
        "no host to connect to: write it into the URL, give host=, set PGHOST, or name the"
        " folder of a Unix socket as in postgresql://user@/name?host=/var/run/postgresql"
    )
    raise ValueError(message)


def shown_host(url: URL) -> str | None:
    """Give the host of a URL, or its hosts, as ``Database.host`` shows it."""
    several = url.query.get("host")
    if several:
        return several if isinstance(several, str) else ",".join(several)
    if not url.host:
        return None
    host = f"[{url.host}]" if ":" in url.host else url.host
    return host if url.port is None else f"{host}:{url.port}"


def _parse(url: str | URL) -> URL:
    if isinstance(url, URL):
        return url
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"url must be a text or an sqlalchemy.URL, not {type(url).__name__}"
        raise TypeError(message)
    parsed = None
    try:
        parsed = make_url(url)
    except Exception:  # noqa: BLE001 - whatever it says may quote the password
        parsed = None
    if parsed is None:  # out here the new error has no __context__ that quotes it
        message = (
            f"this is no database URL (its text is not repeated, it may hold a password): write"
            f" {_SHAPES}, with '@', ':' and '/' in a password percent-encoded"
        )
        raise ValueError(message)
    if not is_sqlite(parsed) and url.count("@") > 1:
        message = (
            "the URL holds more than one '@', so that a part of the password might be taken for the"
            " host: write %40 for each but the one before the host, or use sqlalchemy.URL.create()"
        )
        raise ValueError(message)
    return parsed


def _postgresql_url(url: URL) -> URL:
    if "dsn" in url.query:
        message = "leave dsn= out of the URL's query: its parts belong into the URL itself"
        raise ValueError(message)
    hidden = url.query.get("password")
    if hidden is None:
        return url
    password = hidden if isinstance(hidden, str) else hidden[-1]
    return url.difference_update_query(["password"]).set(password=password)


def _sqlite_url(url: URL) -> URL:
    if url.host or url.username or url.password or url.port or "password" in url.query:
        message = (
            "a SQLite URL has a file and no host, user or password: write three slashes for a"
            " relative path, sqlite:///file.db, and four for an absolute one"
        )
        raise ValueError(message)
    try:
        import_module("aiosqlite")
    except ImportError as error:
        message = "SQLite needs aiosqlite, which is not installed: pip install aiosqlite"
        raise ModuleNotFoundError(message, name="aiosqlite") from error
    return url


def _split_host(host: str) -> tuple[str, int | None]:
    if _BARE_ADDRESS.fullmatch(host):
        return host, None
    found = _HOST.fullmatch(host)
    port = int(found["port"] or _LAST_PORT) if found else 0
    if found is None or not 0 < port <= _LAST_PORT:
        message = (
            "host must be 'name', 'name:port' or '[address]:port' (its text is not repeated, it may"
            " hold a password)"
        )
        raise ValueError(message)
    return found["address"] or found["name"], port if found["port"] else None
