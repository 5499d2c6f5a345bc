"""A switch of the host that fails leaves the working engine, and nothing else."""

from __future__ import annotations

import asyncio
import socket

import pytest
from sqlalchemy.exc import DBAPIError

from tests import server as postgres
from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres import two_servers
from tests.postgres.test_database import pid, until_gone
from tests.postgres.two_servers import host_of, new, twin
from txkit import Database, transactional

other_server = two_servers.other_server
there = two_servers.there


async def test_failed_probe_leaves_the_working_engine(pg: PostgresJudge) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
        async with new(pg) as db:
            before = await transactional(pid)(db)
            with pytest.raises(OSError, match=r"refused|failed"):
                await db.switch_host(closed)
            assert db.host == host_of(pg)
            assert await transactional(pid)(db) == before


async def test_wrong_server_leaves_the_working_engine(
    pg: PostgresJudge, other_server: postgres.Server
) -> None:
    """Scenario: the other server has no such database."""
    elsewhere = other_server.admin_url.partition("@")[2].partition("/")[0]
    async with new(pg) as db:
        before = await transactional(pid)(db)
        with pytest.raises(Exception, match="does not exist"):
            await db.switch_host(elsewhere)
        assert db.host == host_of(pg)
        assert await transactional(pid)(db) == before


async def test_cancelled_probe_leaves_the_working_engine_and_no_connection(
    pg: PostgresJudge, there: PostgresJudge
) -> None:
    """Scenario: cancelled twice, after every number of loop steps until the switch is through."""
    async with new(pg) as db:
        before = await transactional(pid)(db)
        steps, done = 0, False
        while not done:
            task = asyncio.create_task(db.switch_host(host_of(there)))
            for _ in range(steps):
                await asyncio.sleep(0)
            done = task.done()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            if db.host == host_of(pg):
                assert await transactional(pid)(db) == before
                await until_gone(there)
            else:
                await until_gone(pg)
                done = True
            steps += 1
        await transactional(write)(db, "there")
    assert await there.texts() == ["there"]
    await until_gone(there)


async def test_probe_that_hangs_can_be_cancelled(pg: PostgresJudge) -> None:
    """Scenario: the new host accepts, and never answers."""
    accepted = asyncio.Event()

    hung_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        while await reader.read(1024):
            pass
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    deaf = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = deaf.sockets[0].getsockname()[1]
    async with new(pg) as db:
        before = await transactional(pid)(db)
        task = asyncio.create_task(db.switch_host(f"127.0.0.1:{port}"))
        await accepted.wait()
        assert await transactional(pid)(db) == before  # meanwhile everybody works on
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert db.host == host_of(pg)
        assert await transactional(pid)(db) == before
        await hung_up.wait()
    deaf.close()


async def test_failover_away_from_a_dead_server(pg: PostgresJudge) -> None:
    """Scenario: the old server goes down with connections in the pool."""
    dying = postgres.start()
    db = Database(await twin(dying, pg), connect_args={"ssl": False})
    try:
        await transactional(write)(db, "lost")
    finally:
        dying.stop()
    with pytest.raises((DBAPIError, OSError)):
        await transactional(write)(db, "refused")
    await db.switch_host(host_of(pg))
    await transactional(write)(db, "kept")
    await db.close()
    assert await pg.texts() == ["kept"]


@pytest.mark.parametrize("text_given", ["", "u:pw@h", "h:0"])
async def test_bad_host_is_refused(text_given: str) -> None:
    db = Database("postgresql://u@h/d")
    with pytest.raises(ValueError, match="host must be"):
        await db.switch_host(text_given)
    assert db.host == "h"


async def test_switch_is_refused_where_an_option_decides_the_host() -> None:
    db = Database("postgresql://u@h/d", connect_args={"host": "x"})
    with pytest.raises(ValueError, match=r"connect_args\['host'\] decides"):
        await db.switch_host("y")
    with pytest.raises(ValueError, match="SQLite has no host"):
        await Database("sqlite:///f.db").switch_host("y")
