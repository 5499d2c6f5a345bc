"""What commands, tasks and message handlers do in these tests, and how two of them meet.

A text says how its work ends: ``bad ...`` raises ``Boom``, everything else is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec, TypeVar

import pytest

from tests.conftest import PostgresJudge, SqliteJudge
from tests.notes import Boom, write
from txkit import Database, DevelopmentWarning, transactional

P = ParamSpec("P")
R = TypeVar("R")


async def work(db: Database, text: str) -> str:
    """Write a note; then raise, if it is a bad one."""
    await write(db, text)
    if text.startswith("bad"):
        raise Boom(text)
    return f"{text} done"


class SideBySide:
    """Two units, neither of which ends before both have written."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.both_have_written = asyncio.Barrier(2)

    async def work(self, text: str) -> str:
        await write(self.db, text)
        async with asyncio.timeout(20):
            await self.both_have_written.wait()
        if text.startswith("bad"):
            raise Boom(text)
        return f"{text} done"


class Transfer:
    """Two decorated services, for a handler that has no decorator; the second sees the first's commit."""

    def __init__(self, db: Database, judge: PostgresJudge | SqliteJudge) -> None:
        self.db = db
        self.judge = judge

    @transactional
    async def debit(self) -> None:
        await write(self.db, "debit")

    @transactional
    async def credit(self) -> None:
        assert await self.judge.texts() == ["debit"]
        await write(self.db, "credit")

    @contextlib.contextmanager
    def is_told(self, handler: str) -> Iterator[None]:
        """Expect the development mode to name the handler, and both services."""
        services = r".*Transfer\.debit and .*Transfer\.credit, which"
        with pytest.warns(
            DevelopmentWarning,
            match=rf"\.{handler}, which a framework called, has no decorator, and {services}",
        ):
            yield


class Later:
    """A task that a handler starts, and that works when the handler's unit has ended."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.go_on = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self, text: str) -> None:
        self.task = asyncio.create_task(self._wait_and_work(text))

    async def finish(self) -> None:
        assert self.task is not None
        self.go_on.set()
        await self.task

    async def _wait_and_work(self, text: str) -> None:
        await self.go_on.wait()
        await transactional(work)(self.db, text)


def in_event_loop(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make a plain function of an async one, as a user of click or typer does."""

    @functools.wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        return asyncio.run(function(*args, **kwargs))

    return plain


def committed(judge: SqliteJudge) -> list[str]:
    """What a second connection sees, for tests without an event loop."""
    with contextlib.closing(sqlite3.connect(judge.path)) as second:
        return [row[0] for row in second.execute("SELECT text FROM note ORDER BY id")]


@contextlib.contextmanager
def database(judge: SqliteJudge) -> Iterator[Database]:
    """A Database for tests without an event loop."""
    db = Database(judge.url)
    yield db
    asyncio.run(db.close())
