"""switch_host: probe first, then swap; what runs finishes where it is."""

from __future__ import annotations

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres import two_servers
from tests.postgres.test_database import until_gone
from tests.postgres.two_servers import host_of, new
from txkit import Database, commit_db_session, db_session, new_context, transactional

other_server = two_servers.other_server
there = two_servers.there


async def test_new_transactions_go_to_the_new_host(pg: PostgresJudge, there: PostgresJudge) -> None:
    async with new(pg) as db:
        await transactional(write)(db, "here")
        await db.switch_host(host_of(there))
        assert db.host == host_of(there)
        await transactional(write)(db, "there")
        await until_gone(pg)
    assert (await pg.texts(), await there.texts()) == (["here"], ["there"])
    await until_gone(there)


async def test_switch_before_the_first_use(pg: PostgresJudge, there: PostgresJudge) -> None:
    async with new(pg) as db:
        await db.switch_host(host_of(there))
        await transactional(write)(db, "there")
    assert await there.texts() == ["there"]


async def test_open_transaction_finishes_on_the_old_host(
    pg: PostgresJudge, there: PostgresJudge
) -> None:
    """Scenario: switched in the middle of a transaction, on a session that goes on after it.

    Outcome: the rest of the transaction goes to the old host, the next statement after its end
    to the new one, and the old pool is closed to the last connection.
    """
    async with new(pg) as db:

        @transactional
        async def unit() -> None:
            await write(db, "1")
            await db.switch_host(host_of(there))
            assert len(await pg.backends()) == 1
            await write(db, "2")
            session = await db_session(db)
            await commit_db_session(db)
            assert await pg.texts() == ["1", "2"]
            await until_gone(pg)
            await write(db, "3")
            assert await db_session(db) is session

        await unit()
        assert (await pg.texts(), await there.texts()) == (["1", "2"], ["3"])
        await until_gone(pg)
        assert await pg.backends() == []


async def test_session_without_a_transaction_goes_to_the_new_host(
    pg: PostgresJudge, there: PostgresJudge
) -> None:
    async with new(pg) as db:

        @transactional
        async def unit() -> None:
            await db_session(db)
            await db.switch_host(host_of(there))
            await write(db, "there")

        await unit()
    assert (await pg.texts(), await there.texts()) == ([], ["there"])


async def test_session_on_an_engine_with_options_follows_too(
    pg: PostgresJudge, there: PostgresJudge
) -> None:
    """Scenario: the factory binds to the engine with execution options of its own."""

    def serializable(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
        return async_sessionmaker(engine.execution_options(isolation_level="SERIALIZABLE"))

    async with new(pg, session_factory=serializable) as db:

        @transactional
        async def unit() -> None:
            session = await db_session(db)
            query = text("SELECT current_setting('transaction_isolation')")
            for judge in (pg, there):
                await db.switch_host(host_of(judge))
                await write(db, "kept")
                assert (await session.execute(query)).scalar_one() == "serializable"
                await commit_db_session(db)

        await unit()
    assert (await pg.texts(), await there.texts()) == (["kept"], ["kept"])


async def test_old_pool_is_closed_when_the_last_of_many_is_back(
    pg: PostgresJudge, there: PostgresJudge
) -> None:
    async with new(pg, pool_size=2, max_overflow=3) as db:
        everyone = asyncio.Barrier(6)
        leave = [asyncio.Event() for _ in range(5)]

        @new_context
        async def unit(number: int) -> None:
            await write(db, str(number))
            await everyone.wait()
            await leave[number].wait()

        tasks = [asyncio.create_task(unit(number)) for number in range(5)]
        await everyone.wait()
        await db.switch_host(host_of(there))
        for number in range(5):
            assert (
                len([1 for _, state in await pg.backends() if "transaction" in state]) == 5 - number
            )
            leave[number].set()
            await tasks[number]
        await until_gone(pg)
    assert len(await pg.texts()) == 5


async def test_present_host_does_nothing(pg: PostgresJudge) -> None:
    async with new(pg) as db:
        engine = await db.engine()
        await db.switch_host(host_of(pg))
        await db.switch_host("127.0.0.1")  # the port left out is the present one
        assert await db.engine() is engine
        assert await pg.backends() == []


async def test_switches_at_once_follow_one_another(pg: PostgresJudge, there: PostgresJudge) -> None:
    async with new(pg) as db:
        hosts = [host_of(there), host_of(pg), host_of(there)]
        await asyncio.gather(*map(db.switch_host, hosts))
        assert db.host == hosts[-1]
        await transactional(write)(db, "there")
        await until_gone(pg)
        assert len(await there.backends()) == 1
    assert await there.texts() == ["there"]


async def test_same_host_at_once_is_probed_once(pg: PostgresJudge, there: PostgresJudge) -> None:
    """Scenario: five tasks want the same new host, which is behind a door that counts."""
    entered = 0

    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal entered
        entered += 1
        host, _, port = host_of(there).partition(":")
        behind = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, behind[1]), pump(behind[0], writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(door, "127.0.0.1", 0) as counting:
        host = f"127.0.0.1:{counting.sockets[0].getsockname()[1]}"
        async with new(pg) as db:
            await asyncio.gather(*(db.switch_host(host) for _ in range(5)))
            assert entered == 1
            await transactional(write)(db, "there")
        await until_gone(there)
    assert (await there.texts(), entered) == (["there"], 1)


async def test_before_session_may_switch(pg: PostgresJudge, there: PostgresJudge) -> None:
    """Scenario: every session asks which host is the primary, and the primary moves."""
    primary = host_of(pg)

    async def follow(database: Database) -> None:
        await database.switch_host(primary)

    async with new(pg, before_session=follow) as db:
        await transactional(write)(db, "here")
        primary = host_of(there)
        await asyncio.gather(*(transactional(write)(db, "there") for _ in range(3)))
    assert (await pg.texts(), await there.texts()) == (["here"], ["there"] * 3)
    await until_gone(pg)
    await until_gone(there)
