"""Round trips, counted exactly: a proxy on loopback that reads the frontend protocol.

The client waits for the server after Query, Sync and Flush, and after nothing
else, so their number is the number of round trips.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_ASKS = frozenset(b"QSH")  # Query, Sync, Flush: the server answers now
_STARTUP = 3 << 16
_CHUNK = 1 << 16


class Counter:
    """How many round trips went through the proxy."""

    def __init__(self) -> None:
        self.round_trips = 0

    async def of(self, unit: Callable[[], Awaitable[object]]) -> float:
        """Count for one unit on a warm connection, where statements are prepared already."""
        repeats = 10
        for _ in range(repeats):
            await unit()
        before = self.round_trips
        for _ in range(repeats):
            await unit()
        return (self.round_trips - before) / repeats


@contextlib.asynccontextmanager
async def counting(url: str) -> AsyncIterator[tuple[str, Counter]]:
    """Give the URL of a proxy to ``url``'s server, and its counter."""
    parts = urlsplit(url)
    counter = Counter()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(parts.hostname, parts.port or 5432)
        for task in (
            asyncio.create_task(_requests(reader, upstream[1], counter)),
            asyncio.create_task(_answers(upstream[0], writer)),
        ):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()[:2]
    user = "" if parts.username is None else parts.netloc.rpartition("@")[0] + "@"
    try:
        yield urlunsplit(parts._replace(netloc=f"{user}{host}:{port}")), counter
    finally:
        listener.close()
        while tasks:
            await asyncio.wait(set(tasks), timeout=10)


async def _requests(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: Counter
) -> None:
    """Pass messages on, one by one; the ones before StartupMessage have no type."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        started = False
        while True:
            kind = await reader.readexactly(1) if started else b""
            length = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(length) - 4)
            started = started or int.from_bytes(body[:4]) == _STARTUP
            counter.round_trips += bool(kind) and kind[0] in _ASKS
            writer.write(kind + length + body)
            await writer.drain()
    writer.close()


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
