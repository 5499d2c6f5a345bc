"""A server gets SIGTERM with requests in flight: each is committed or rolled back as a whole."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.cancellation.watching import MOMENTS, ended, gone
from tests.conftest import PostgresJudge
from tests.postgres.test_cancellation import hold_commits, release_commits
from tests.samples.programs import start

MODULE = "tests.cancellation.app:app"
FAILURES = {None, 500}
"""The server drops a request that it cancels, or has the time to say that it failed."""


class Service:
    """A running server, on a socket in a folder of its own."""

    def __init__(self, folder: Path, pg: PostgresJudge) -> None:
        self.socket = folder / "socket"
        grace = "--timeout-graceful-shutdown=1"
        self.process = start(
            folder, "uvicorn", MODULE, f"--uds={self.socket}", grace, DATABASE_URL=pg.url
        )

    async def ready(self) -> None:
        while not self.socket.exists():
            assert self.process.poll() is None, self.process.communicate()
            await asyncio.sleep(0.01)

    async def post(self, path: str) -> int | None:
        """Give the answer's status, or None where there is none."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        async with httpx.AsyncClient(transport=transport, timeout=60) as client:
            try:
                return (await client.post(f"http://service/{path}")).status_code
            except httpx.RemoteProtocolError:
                return None

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
async def service(tmp_path: Path, pg: PostgresJudge) -> AsyncIterator[Service]:
    running = Service(tmp_path, pg)
    try:
        await running.ready()
        yield running
    finally:
        running.stop()


async def in_flight(
    service: Service, pg: PostgresJudge, *paths: str
) -> list[asyncio.Task[int | None]]:
    """Send requests, each when the one before it is where it is to wait."""
    requests = []
    for path in paths:
        requests.append(asyncio.create_task(service.post(path)))
        await MOMENTS[path](pg)
    return requests


async def test_those_that_do_not_end_in_time_are_whole(service: Service, pg: PostgresJudge) -> None:
    """Scenario: one between statements, one in a statement, one in a COMMIT that has to wait.
    Outcome: the server cancels them and ends by itself; no good answer, and nothing is left open."""
    await hold_commits(pg)
    requests = await in_flight(service, pg, "between", "statement", "commit")
    service.process.send_signal(signal.SIGTERM)
    _, err = await ended(service.process)
    assert "Cancel 3 running task(s)" in err
    assert service.process.returncode == -signal.SIGTERM, err
    assert set(await asyncio.gather(*requests)) <= FAILURES
    await release_commits(pg)
    await gone(pg)
    assert await pg.texts() in ([], ["commit"])


async def test_commit_that_ends_in_time_is_answered(service: Service, pg: PostgresJudge) -> None:
    """Scenario: the same, and COMMIT goes on while the server waits for its requests."""
    await hold_commits(pg)
    *cancelled, committing = await in_flight(service, pg, "between", "statement", "commit")
    service.process.send_signal(signal.SIGTERM)
    await release_commits(pg)
    out, err = await ended(service.process)
    assert "Cancel 2 running task(s)" in err
    assert "commit: committed" in out.splitlines()
    assert service.process.returncode == -signal.SIGTERM, err
    assert await committing == 200
    assert set(await asyncio.gather(*cancelled)) <= FAILURES
    await gone(pg)
    assert await pg.texts() == ["commit"]
