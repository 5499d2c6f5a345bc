"""No password in any repr, log line, error or traceback, at work on a real server."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from tests.conftest import PostgresJudge
from tests.notes import write
from txkit import Database, transactional

MARK = "s3cr3t"
PASSWORDS = st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
).map(lambda around: around[0] + MARK + around[1])


class Heard(logging.Handler):
    """Every line of every logger, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def places(url: URL, password: str) -> list[tuple[Any, dict[str, Any]]]:
    """The three places where a password may be written, as a URL and as a text."""
    user = url.set(password=password)
    query = url.update_query_dict({"password": password})
    return [
        (user, {}),
        (user.render_as_string(hide_password=False), {}),
        (query, {}),
        (query.render_as_string(hide_password=False), {}),
        (url, {"connect_args": {"password": password}}),
    ]


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and everything that hangs on it, shown or suppressed."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "orig", None)]
    return found


@given(password=PASSWORDS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_password_is_never_seen(server: Any, password: str) -> None:
    """Scenario: work, a failed statement, a server that refuses and one that isn't there, each with
    the password in every place, and every logger at DEBUG.
    """
    asyncio.run(everything(server.admin_url, password))


async def everything(admin_url: str, password: str) -> None:
    heard = Heard()
    root = logging.getLogger()
    names = ["", "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "txkit", "asyncio"]
    levels = {name: logging.getLogger(name).level for name in names}
    root.addHandler(heard)
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    seen: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refuses = f"127.0.0.1:{taken.getsockname()[1]}"
        try:
            for url, options in places(make_url(admin_url), password):
                async with Database(url, **options) as db:
                    seen += [repr(db), str(db), db.name, str(db.host), repr(await db.engine())]
                    engine = await db.engine()
                    seen += [repr(engine.url), repr(engine.pool), engine.pool.status()]
                    for failing in (
                        transactional(write)(db, "there is no such table"),
                        db.switch_host(refuses),
                        db.switch_host(f"u:{password}@h"),
                    ):
                        with pytest.raises(Exception) as caught:
                            await failing
                        for error in chain(caught.value):
                            seen += [repr(error), str(error)]
                            seen += traceback.format_exception(error)
        finally:
            root.removeHandler(heard)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
    assert any("BEGIN" in line for line in heard.lines), "the loggers were on"
    for line in seen + heard.lines:
        assert MARK not in line


async def test_error_of_the_wrong_option_does_not_show_it(pg: PostgresJudge) -> None:
    db = Database(pg.url, connect_args={"passwort": MARK})
    with pytest.raises(TypeError, match="passwort") as caught:
        await transactional(write)(db, "x")
    assert all(MARK not in f"{error!r}" for error in chain(caught.value))
    await db.close()
