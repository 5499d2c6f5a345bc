"""What really goes over the wire: a proxy on loopback that reads the frontend protocol.

It notes the text of every statement when it is executed, whoever sends it and
however (simple or prepared), requests to cancel, and each wait for the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

from tests.conftest import PostgresJudge, opened
from txkit import Database

CANCEL_REQUEST = "(a request to cancel)"
_CANCEL, _STARTUP = 80877102, 3 << 16
_ASKS = b"QSH"  # Query, Sync, Flush: the server answers now, and the client waits
_CHUNK = 1 << 16


class Wire:
    """What was sent since the last ``clear()``."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sent: list[str] = []
        self.round_trips = 0

    @property
    def verbs(self) -> list[str]:
        """The first words of the statements."""
        two = {"ROLLBACK TO", "RELEASE SAVEPOINT"}
        words = [statement.replace(";", " ").split() for statement in self.sent]
        return [" ".join(one[:2]) if " ".join(one[:2]) in two else one[0] for one in words]

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass messages on, one by one; the ones before StartupMessage have no type."""
        prepared: dict[bytes, bytes] = {}
        bound = b""
        started = False
        errors = (asyncio.IncompleteReadError, ConnectionError)
        with contextlib.suppress(*errors), contextlib.closing(writer):
            while True:
                kind = await reader.readexactly(1) if started else b""
                length = await reader.readexactly(4)
                body = await reader.readexactly(int.from_bytes(length) - 4)
                if not started:
                    code = int.from_bytes(body[:4])
                    started = code == _STARTUP
                    if code == _CANCEL:
                        self.sent.append(CANCEL_REQUEST)
                elif kind == b"Q":
                    self._note(body.partition(b"\0")[0])
                elif kind == b"P":
                    name, _, rest = body.partition(b"\0")
                    prepared[name] = rest.partition(b"\0")[0]
                elif kind == b"B":
                    bound = prepared[body.split(b"\0", 2)[1]]
                elif kind == b"E":
                    self._note(bound)
                self.round_trips += bool(kind) and kind in _ASKS
                writer.write(kind + length + body)
                await writer.drain()

    def _note(self, statement: bytes) -> None:
        self.sent.append(" ".join(statement.decode().split()))


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError), contextlib.closing(writer):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def wired(pg: PostgresJudge, **options: object) -> AsyncIterator[tuple[Database, Wire]]:
    """Give a Database with a pool of one that goes through a proxy, and what it sends."""
    parts = urlsplit(pg.url)
    wire = Wire()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(parts.hostname, parts.port or 5432)
        for work in (wire.requests(reader, upstream[1]), _answers(upstream[0], writer)):
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()[:2]
    user = "" if parts.username is None else parts.netloc.rpartition("@")[0] + "@"
    url = urlunsplit(parts._replace(netloc=f"{user}{host}:{port}"))
    try:
        judge = PostgresJudge(pg.connection, url)
        async for db in opened(judge, **{"pool_size": 1, "max_overflow": 0, **options}):
            yield db, wire
    except BaseException:  # a test that failed has left its connection open
        for task in tasks:
            task.cancel()
        raise
    finally:
        listener.close()
        await asyncio.gather(*tasks, return_exceptions=True)
