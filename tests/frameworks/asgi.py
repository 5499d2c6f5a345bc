"""Serve an ASGI application with uvicorn, in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:  # the test's own
        yield


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
            server.should_exit = True
            await task
