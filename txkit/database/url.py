"""Turn what the user wrote into a URL that SQLAlchemy's asyncio can use.

Every refusal says what to write instead, and none of them repeats the URL's
text: a URL that could not be parsed may hold a password anywhere.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from sqlalchemy.engine import URL, make_url

POSTGRESQL = "postgresql"
SQLITE = "sqlite"

_ASYNC_DRIVERS = {POSTGRESQL: "asyncpg", SQLITE: "aiosqlite"}
_SHAPES = "postgresql://user:password@host:5432/name or sqlite:///file.db"


def parse_url(url: str | URL) -> URL:
    """Parse a URL and give it its async driver.

    Raises:
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
    if backend == SQLITE:
        require_aiosqlite()
    return parsed


def require_aiosqlite() -> None:
    """Say early, and in words, that SQLite's driver is missing."""
    if find_spec("aiosqlite") is None:
        message = 'SQLite needs aiosqlite, which is not installed: pip install "txkit[sqlite]"'
        raise ModuleNotFoundError(message, name="aiosqlite")


def replace_host(url: URL, host: str) -> URL:
    """Put ``host`` or ``host:port`` in the place of the URL's.

    Raises:
        ValueError: SQLite, or a text that is no host.
    """
    if url.get_backend_name() == SQLITE:
        message = "SQLite has no host: leave host= out, or give a postgresql:// URL"
        raise ValueError(message)
    name, port = _split_host(host)
    query = {key: value for key, value in url.query.items() if key not in {"host", "port"}}
    return url.set(host=name, port=url.port if port is None else port, query=query)


def require_host(url: URL, connect_args: object) -> None:
    """Refuse a PostgreSQL URL that leaves the host to chance.

    Raises:
        ValueError: no host anywhere.
    """
    if url.get_backend_name() == SQLITE or url.host or "host" in url.query:
        return
    if isinstance(connect_args, dict) and ("host" in connect_args or "dsn" in connect_args):
        return
    if "PGHOST" in os.environ:
        return
    message = (
        "no host to connect to: write it into the URL, give host=, set PGHOST, or name the"
        " folder of a Unix socket as in postgresql://user@/name?host=/var/run/postgresql"
    )
    raise ValueError(message)


def shown_host(url: URL) -> str | None:
    """Give the host of a URL as ``Database.host`` shows it."""
    if url.host is None:
        return None
    host = f"[{url.host}]" if ":" in url.host else url.host
    return host if url.port is None else f"{host}:{url.port}"


def is_memory(url: URL) -> bool:
    """Whether a SQLite URL names a database that lives in memory."""
    name = url.database
    return not name or ":memory:" in name or url.query.get("mode") == "memory"


def _parse(url: str | URL) -> URL:
    if isinstance(url, URL):
        return url
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"url must be a text or an sqlalchemy.URL, not {type(url).__name__}"
        raise TypeError(message)
    try:
        return make_url(url)
    except Exception:  # noqa: BLE001 - whatever it says may quote the password
        message = (
            f"this is no database URL (its text is not repeated, it may hold a password): write"
            f" {_SHAPES}, with '@', ':' and '/' in a password percent-encoded"
        )
        raise ValueError(message) from None


def _split_host(host: str) -> tuple[str, int | None]:
    name, port = host, ""
    if host.startswith("["):  # [::1]:5432
        name, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    elif host.count(":") == 1:
        name, _, port = host.partition(":")
    if not name or (port and not port.isdigit()) or any(c in name for c in "@/ ,"):
        message = f"host must be 'name', 'name:port' or '[address]:port', not {host!r}"
        raise ValueError(message)
    return name, int(port) if port else None
