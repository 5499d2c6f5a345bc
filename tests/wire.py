"""What a Database sends, and what becomes of it on the way: judged from outside, on both backends.

PostgreSQL: a proxy on loopback reads the frontend protocol. It notes every statement,
counts the times that the client waits for an answer, can refuse connections, and can
lose a COMMIT or its answer. SQLite: the driver's own trace.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import event
from sqlalchemy.util import await_only

from tests.conftest import Place, PostgresJudge, opened
from txkit import Database

_ASKS = frozenset(b"QSH")  # Query, Sync, Flush: the client waits for the server
_STARTUP = 3 << 16
_CHUNK = 1 << 16


class Wire:
    """The way to a server. ``sent`` are the statements that went over it, in order.

    ``loses`` is what becomes of the next COMMIT: the request is lost, or its answer.
    When the server ends a connection, and the wire ``lingers``, its last words arrive, the
    end does not; while it is ``silent``, nothing arrives until the client asks.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()
        self._talks: list[_Talk] = []
        self._listener: asyncio.Server | None = None
        self._port = 0
        self.sent: list[str] = []
        self.round_trips = 0
        self.loses: Literal["request", "answer"] | None = None
        self.lingers = self.silent = False

    @property
    def url(self) -> str:
        user = "" if self._parts.username is None else f"{self._parts.username}@"
        return urlunsplit(self._parts._replace(netloc=f"{user}127.0.0.1:{self._port}"))

    async def open(self) -> None:
        """Accept connections, on the same port each time."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Refuse connections; those that are open stay."""
        if self._listener is not None:
            self._listener.close()

    async def quiet(self) -> None:
        """Wait until a server that ended its connections has said all that it had to say."""
        while any(not talk.is_over for talk in self._talks):
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until every connection is closed."""
        while self._tasks:
            await asyncio.wait(set(self._tasks), timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._parts.hostname, self._parts.port or 5432
        answers, requests = await asyncio.open_connection(host, port)
        talk = _Talk(self, writer, requests)
        self._talks.append(talk)
        for work in (talk.pass_requests(reader), talk.pass_answers(answers)):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class _Talk:
    """One connection."""

    def __init__(
        self, wire: Wire, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._wire = wire
        self._client = client
        self._server = server
        self._prepared: dict[bytes, str] = {}
        self._is_deaf = False
        self._client_is_gone = asyncio.Event()
        self.is_over = False  # on the server's side

    async def pass_requests(self, reader: asyncio.StreamReader) -> None:
        """Pass messages on, one by one; the ones before StartupMessage have no type."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            is_started = False
            while True:
                kind = await reader.readexactly(1) if is_started else b""
                length = await reader.readexactly(4)
                body = await reader.readexactly(int.from_bytes(length) - 4)
                is_started = is_started or int.from_bytes(body[:4]) == _STARTUP
                if self.is_over or (kind and self._is_lost(kind, body)):
                    break
                self._server.write(kind + length + body)
                await self._server.drain()
        self._client_is_gone.set()
        self._server.close()

    async def pass_answers(self, reader: asyncio.StreamReader) -> None:
        """Pass everything back, until an answer is to be lost."""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                if self._is_deaf:
                    break
                if not self._wire.silent:
                    self._client.write(data)
                    await self._client.drain()
        self.is_over = True
        if self._wire.lingers or self._wire.silent:
            await self._client_is_gone.wait()
        self._client.close()

    def _is_lost(self, kind: bytes, body: bytes) -> bool:
        """Note what is asked; say whether it never arrives."""
        wire = self._wire
        wire.round_trips += kind[0] in _ASKS
        statement = self._statement(kind, body)
        if statement is None:
            return False
        wire.sent.append(statement)
        if wire.loses is None or not statement.startswith("COMMIT"):
            return False
        self._is_deaf = wire.loses == "answer"
        wire.loses = None
        return not self._is_deaf

    def _statement(self, kind: bytes, body: bytes) -> str | None:
        if kind == b"Q":
            return body.rstrip(b"\0").decode().rstrip("; \n")
        if kind == b"P":
            name, query, _ = body.split(b"\0", 2)
            self._prepared[name] = query.decode()
        if kind == b"B":
            return self._prepared[body.split(b"\0", 2)[1]]
        return None


class Watched(Place):
    """A place, and every statement that it was sent: ``BEGIN``, ``INSERT``, ``SAVEPOINT`` ..."""

    def __init__(self, db: Database, judge: Any, sent: list[str]) -> None:
        super().__init__(db, judge)
        self.sent = sent

    def verbs(self) -> list[str]:
        """Give the statements' first words, and their last one for a savepoint's name."""
        return [_short(statement) for statement in self.sent]


def _short(statement: str) -> str:
    words = statement.rstrip(";").split()
    if words[0] in {"SAVEPOINT", "RELEASE"} or words[:2] == ["ROLLBACK", "TO"]:
        verb = "ROLLBACK TO" if words[0] == "ROLLBACK" else words[0]
        return f"{verb} {words[-1].rpartition('_')[2]}"
    return words[0]


@contextlib.asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """Open a way to ``url``'s server."""
    wire = Wire(url)
    await wire.open()
    try:
        yield wire
    finally:
        wire.close()
        await wire.gone()


async def watched(place: Place) -> AsyncIterator[Watched]:
    """Give a Database for the place's judge, every statement of which is seen."""
    if isinstance(place.judge, PostgresJudge):
        async with wire_to(place.judge.url) as wire:
            way = PostgresJudge(place.judge.connection, wire.url)
            async for db in opened(way, name="app", pool_size=1, max_overflow=0):
                await _connect(db)
                wire.sent.clear()  # what the first connection asks is not of interest
                yield Watched(db, place.judge, wire.sent)
    else:
        sent: list[str] = []
        async for db in opened(place.judge, name="app"):
            event.listen((await db.engine()).sync_engine, "connect", partial(_trace, sent))
            await _connect(db)
            sent.clear()
            yield Watched(db, place.judge, sent)


async def _connect(db: Database) -> None:
    async with (await db.engine()).connect():
        pass


def _trace(sent: list[str], dbapi_connection: Any, _record: object) -> None:
    await_only(dbapi_connection.driver_connection.set_trace_callback(sent.append))
