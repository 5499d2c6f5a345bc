"""What may be written as url=, host= and options, and what each refusal says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.pool import NullPool, StaticPool

from txkit import Database

PG = "postgresql://user:pw@h:5433/shop"


@pytest.mark.parametrize(
    ("given_url", "driver"),
    [
        ("postgresql://u@h/d", "postgresql+asyncpg"),
        ("postgres://u@h/d", "postgresql+asyncpg"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg"),
        ("postgres+asyncpg://u@h/d", "postgresql+asyncpg"),
        (make_url("postgresql://u@h/d"), "postgresql+asyncpg"),
        ("sqlite://", "sqlite+aiosqlite"),
        ("sqlite:///f.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////tmp/f.db", "sqlite+aiosqlite"),
        (URL.create("sqlite", database="f.db"), "sqlite+aiosqlite"),
    ],
)
async def test_url_gets_its_async_driver(given_url: str | URL, driver: str) -> None:
    engine = await Database(given_url).engine()
    assert engine.url.drivername == driver


@pytest.mark.parametrize(
    ("host", "shown", "name", "port"),
    [
        ("other", "other", "other", 5433),
        ("other:1234", "other:1234", "other", 1234),
        ("10.0.0.1:1", "10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:1234", "[::1]:1234", "::1", 1234),
        ("[::1]", "[::1]", "::1", 5433),
        ("::1", "::1", "::1", 5433),
        ("fe80::1%eth0", "fe80::1%eth0", "fe80::1%eth0", 5433),
    ],
)
async def test_host_replaces_the_urls(host: str, shown: str, name: str, port: int) -> None:
    db = Database(PG + "?host=a:1&host=b:2&application_name=x", host=host)
    url = (await db.engine()).url
    assert (db.host, url.host, url.port) == (shown, name, port)
    assert dict(url.query) == {"application_name": "x"}


@pytest.mark.parametrize(
    ("given_url", "shown"),
    [
        (PG, "h:5433"),
        ("postgresql://u@h/d", "h"),
        ("postgresql://u@[::1]:5/d", "[::1]:5"),
        ("postgresql://u@/d?host=a:1&host=b:2", "a:1,b:2"),
        ("postgresql://u@/d?host=/run/postgresql", "/run/postgresql"),
        ("sqlite:///f.db", None),
    ],
)
def test_host_shows_the_urls(given_url: str, shown: str | None) -> None:
    assert Database(given_url).host == shown


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":1",
        "h:",
        "h:x",
        "h:0",
        "h:65536",
        "h:²",
        "a b",
        "a/b",
        "u:pw@h",
        "[::1",
        "[::1]5",
        "a,b",
    ],
)
def test_bad_host_is_refused_without_being_repeated(host: str) -> None:
    with pytest.raises(ValueError, match="host must be 'name', 'name:port'") as caught:
        Database(PG, host=host)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, TypeError, "either a url or an engine_factory"),
        ({"url": PG, "engine_factory": lambda _: None}, TypeError, "either a url or"),
        ({"engine_factory": lambda _: None, "pool_size": 3}, TypeError, r"\(pool_size\) go with a"),
        ({"url": 5}, TypeError, "url must be a text or an sqlalchemy.URL, not int"),
        ({"url": PG, "host": 5}, TypeError, "host must be a text"),
        (
            {"url": "mysql://u@h/d"},
            ValueError,
            "no database backend 'mysql' here.*write postgresql",
        ),
        (
            {"url": "postgresql+psycopg2://u@h/d"},
            ValueError,
            r"'psycopg2' .*write postgresql:// or",
        ),
        ({"url": "sqlite+pysqlite:///f"}, ValueError, "'pysqlite' .*write sqlite:// or"),
        ({"url": "shop"}, ValueError, "no database URL .*write postgresql://"),
        ({"url": ""}, ValueError, "no database URL"),
        ({"url": "postgresql://u@h:port/d"}, ValueError, "no database URL"),
        ({"url": "postgresql:///d"}, ValueError, "no host .*write it into the URL, give host="),
        ({"url": "postgresql://u:p@q@h/d"}, ValueError, "more than one '@'.*write %40"),
        ({"url": "postgresql://h/d?dsn=x"}, ValueError, "leave dsn= out"),
        ({"url": "sqlite://app.db"}, ValueError, "three slashes"),
        ({"url": "sqlite://u:pw@h/app.db"}, ValueError, "no host, user or password"),
        ({"url": "sqlite:///app.db", "host": "h"}, ValueError, "SQLite has no host"),
        (
            {"url": PG, "host": "x", "connect_args": {"host": "y"}},
            ValueError,
            r"connect_args\['host'",
        ),
        (
            {"url": PG, "host": "x", "async_creator": len},
            ValueError,
            "async_creator= decides where",
        ),
        ({"url": PG, "isolation_level": "AUTOCOMMIT"}, ValueError, "AUTOCOMMIT.*leave it out"),
        ({"url": PG, "isolation_level": "autocommit"}, ValueError, "AUTOCOMMIT"),
        (
            {"url": PG, "execution_options": {"isolation_level": "AUTOCOMMIT"}},
            ValueError,
            "AUTOCOMM",
        ),
        ({"url": PG, "poolclass": StaticPool}, ValueError, "StaticPool would let units share"),
        ({"url": PG, "pool": NullPool(lambda: None)}, ValueError, "pool= or a StaticPool"),
        ({"url": PG, "pool_reset_on_return": None}, ValueError, "must stay 'rollback'"),
        ({"url": PG, "pool_reset_on_return": "commit"}, ValueError, "must stay 'rollback'"),
        ({"url": "sqlite:///a.db", "pool_reset_on_return": None}, ValueError, "must stay 'rollb"),
        ({"url": "sqlite://", "pool_size": 5}, ValueError, "in-memory .* is one connection"),
        ({"url": "sqlite://", "poolclass": NullPool}, ValueError, "leave poolclass, pool_size"),
        ({"url": PG, "finish_timeout_s": 0}, ValueError, "finish_timeout_s must be"),
        ({"url": PG, "finish_timeout_s": -1}, ValueError, "finish_timeout_s must be"),
        ({"url": PG, "finish_timeout_s": float("nan")}, ValueError, "finish_timeout_s must be"),
        ({"url": PG, "finish_timeout_s": float("inf")}, ValueError, "finish_timeout_s must be"),
    ],
)
def test_senseless_arguments_are_refused(
    arguments: dict[str, object], error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    with pytest.raises(error, match=says):
        Database(**arguments)  # type: ignore[arg-type]


def test_host_of_the_environment_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "h")
    assert Database("postgresql:///d").host is None


def test_host_of_the_connect_args_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    assert Database("postgresql:///d", connect_args={"host": "h"}).host == "h"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"url": PG}, "shop"),
        ({"url": PG, "name": "mine"}, "mine"),
        ({"url": "sqlite:////a/b/app.db"}, "app"),
        ({"url": "sqlite://"}, "database"),
        ({"engine_factory": lambda _: None}, "database"),
    ],
)
def test_name(arguments: dict[str, object], name: str) -> None:
    assert Database(**arguments).name == name  # type: ignore[arg-type]


async def test_engine_options_reach_the_engine() -> None:
    engine = await Database(PG, pool_size=3, max_overflow=4, hide_parameters=True).engine()
    assert engine.pool.size() == 3  # type: ignore[attr-defined]
    assert engine.pool._max_overflow == 4  # type: ignore[attr-defined]
    assert engine.sync_engine.hide_parameters


async def test_unknown_engine_option_is_refused_by_sqlalchemy() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        await Database(PG, nonsense=1).engine()


@pytest.mark.parametrize("way", ["none", "blocked"])
def test_missing_aiosqlite_says_what_to_install(way: str) -> None:
    program = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "aiosqlite":
            raise ModuleNotFoundError("No module named 'aiosqlite'", name="aiosqlite")
if sys.argv[1] == "none":
    sys.modules["aiosqlite"] = None
else:
    sys.meta_path.insert(0, Blocker())
from txkit import Database
Database("postgresql://u@h/d")  # needs none
try:
    Database("sqlite:///f.db")
except ModuleNotFoundError as error:
    print(error.name, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, way], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("aiosqlite SQLite needs aiosqlite")
    assert "pip install aiosqlite" in done.stdout
