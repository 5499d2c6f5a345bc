"""A Redis of a test's own, on a port of 127.0.0.1: no server needs to be installed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from fakeredis import TcpFakeServer


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """Serve, and give the port."""
    server = TcpFakeServer(("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
