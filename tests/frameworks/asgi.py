"""Serve an ASGI application with uvicorn, in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn


class _Quiet(uvicorn.Server):
    """uvicorn without what a test must not have (its signals), or wait for (its naps)."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:  # the test's own
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ended.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0)
        await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def asgi_server(app: Any, **options: Any) -> AsyncIterator[int]:
    """Serve on a free port of loopback; give the port."""
    options = {"log_config": None, "lifespan": "off", "ws": "websockets-sansio", **options}
    server = _Quiet(uvicorn.Config(app, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            assert not task.done(), task.result()
            await asyncio.sleep(0)
        try:
            yield listener.getsockname()[1]
        finally:
            server.ended.set()
            await task
