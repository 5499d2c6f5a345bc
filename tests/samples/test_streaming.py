"""The streams sample behind a real server: memory, connections, and clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import PostgresJudge
from tests.samples.programs import ROOT

MANY = 100_000
LEAST_BYTES = 15_000_000
MOST_KB = 12_000


class Served:
    """A uvicorn process with the sample, on the judge's database."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def peak_kb(self) -> int:
        """Give the most memory that the process has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1])


@pytest.fixture
async def served(pg: PostgresJudge, tmp_path: Path) -> AsyncIterator[Served]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "--factory", "samples.streaming:create_app"]
        process = subprocess.Popen(
            [*command, f"--fd={listener.fileno()}", "--log-level=warning"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": pg.url},
            cwd=tmp_path,
        )
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            assert (await client.get("/notes.csv")).status_code == 200
        yield Served(process, url)
    finally:
        process.terminate()
        assert process.wait(30) in {0, -15}


async def fill(pg: PostgresJudge) -> None:
    await pg.fetch(
        "INSERT INTO streamed_note (text) SELECT repeat('x', 160) FROM generate_series(1, $1)", MANY
    )


async def until_all_are_idle(pg: PostgresJudge) -> None:
    while {state for _, state in await pg.backends()} - {"idle"}:
        await asyncio.sleep(0)


async def test_hundred_thousand_rows_are_exported_in_constant_memory(
    served: Served, pg: PostgresJudge
) -> None:
    await fill(pg)
    before, lines, size = served.peak_kb(), 0, 0
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        async with client.stream("GET", "/notes.csv") as response:
            async for chunk in response.aiter_bytes():
                lines += chunk.count(b"\n")
                size += len(chunk)
    assert lines == MANY
    assert size > LEAST_BYTES
    assert served.peak_kb() - before < MOST_KB
    await until_all_are_idle(pg)


async def test_client_that_goes_away_leaves_no_transaction(
    served: Served, pg: PostgresJudge
) -> None:
    await fill(pg)
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        async with client.stream("GET", "/notes.csv") as response:
            async for _ in response.aiter_bytes():
                break
    await until_all_are_idle(pg)
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        assert (await client.post("/notes", json={"text": "next"})).status_code == 201


async def test_events_come_as_they_are_committed_and_nothing_is_held_meanwhile(
    served: Served, pg: PostgresJudge
) -> None:
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        async with client.stream("GET", "/notes/events") as response:
            lines = response.aiter_lines()
            for number in range(1, 4):
                answer = await client.post("/notes", json={"text": f"note {number}"})
                assert answer.json() == {"id": number}
                found = [await anext(lines) for _ in range(3)]
                assert found == [f"id: {number}", f'data: "note {number}"', ""]
            await until_all_are_idle(pg)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(lines)
                raise AssertionError
        headers = {"Last-Event-ID": "2"}
        async with client.stream("GET", "/notes/events", headers=headers) as response:
            assert await anext(response.aiter_lines()) == "id: 3"
