"""``timeout_s`` over waits of the database's: statements, locks, the pool, a server that is silent.

A second connection sees the statement gone within a second, and its locks with it; a
pool of one works afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_atomic import Note
from tests.boundary.test_timeouts import ENOUGH_S, LATER_S, RULES, SOON_S
from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked
from tests.postgres.watching import bystander, locked_row, pool_of_one, until_idle
from txkit import (
    Database,
    TransactionTimeoutError,
    UnexpectedRollbackError,
    atomic,
    before_commit,
    db_session,
    new_context,
    transactional,
)

ROW = 2000


async def sleep(db: Database) -> None:
    await ask(db, "SELECT pg_sleep(60)")


async def wait_for_row(db: Database) -> None:
    await ask(db, "DELETE FROM note WHERE id = 1000 RETURNING id")


async def sleep_before_commit(db: Database) -> None:
    before_commit(lambda: sleep(db))


async def sleep_in_atomic(db: Database) -> None:
    async with atomic(db, current_transaction="savepoint"):
        await sleep(db)


WAITS = {
    "statement": sleep,
    "row lock": wait_for_row,
    "before_commit hook": sleep_before_commit,
    "atomic": sleep_in_atomic,
    "joined": transactional(sleep),
    "joined with a longer limit": transactional(timeout_s=LATER_S)(sleep),
    "nested": transactional(propagation="nested")(sleep),
    "nested with a longer limit": transactional(propagation="nested", timeout_s=LATER_S)(sleep),
}


@contextlib.asynccontextmanager
async def gone_within_a_second(pg: PostgresJudge) -> AsyncIterator[Database]:
    """Give a Database with a pool of one, and look afterwards at what is left on the server."""
    await pg.fetch("INSERT INTO note VALUES ($1, 'mine')", ROW)
    async with pool_of_one(pg) as db:
        async with transactional():
            await ask(db, "SELECT 1")  # the connection is there
        yield db
        assert await until_idle(pg) < 1
        await pg.fetch("SELECT FROM note WHERE id = $1 FOR UPDATE NOWAIT", ROW)
        assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        async with transactional():
            await write(db, "next")
    assert (
        await pg.fetch("SELECT text FROM note WHERE text NOT IN ('mine', 'locked', 'next')") == []
    )


@BOTH_FACES
@pytest.mark.parametrize("wait", WAITS)
async def test_statement_is_gone_and_its_locks_with_it(
    pg: PostgresJudge, run: Run, wait: str
) -> None:
    async def body() -> None:
        await write(db, "lost")
        await ask(db, f"UPDATE note SET text = 'lost' WHERE id = {ROW} RETURNING id")
        await WAITS[wait](db)

    loop = asyncio.get_running_loop()
    async with locked_row(pg), gone_within_a_second(pg) as db:
        start = loop.time()
        with pytest.raises(TransactionTimeoutError) as caught, anyio.CancelScope():
            await run(transactional(timeout_s=ENOUGH_S, name="import_day"), body)
        assert ENOUGH_S <= loop.time() - start < ENOUGH_S + 1
        assert caught.value.function == "import_day"


@BOTH_FACES
async def test_flush_at_the_end_is_within_the_limit(pg: PostgresJudge, run: Run) -> None:
    """It waits for whoever has inserted the same key and not committed yet."""

    async def body() -> None:
        await ask(db, f"UPDATE note SET text = 'lost' WHERE id = {ROW} RETURNING id")
        (await db_session(db)).add(Note(id=3000, text="taken"))

    async with bystander(pg) as other, gone_within_a_second(pg) as db:
        await other.execute("INSERT INTO note VALUES (3000, 'next')")
        with pytest.raises(TransactionTimeoutError):
            await run(transactional(timeout_s=SOON_S), body)


@BOTH_FACES
@pytest.mark.parametrize("how", ["required", "nested"])
@pytest.mark.parametrize("rule", RULES)
async def test_joined_call_that_is_cut_short_in_a_statement_can_not_be_committed(
    pg: PostgresJudge, run: Run, how: str, rule: str
) -> None:
    """The connection is lost with its statement: what was done on it before is too, by any rule."""

    async def body() -> None:
        await sleep(db)

    async with gone_within_a_second(pg) as db:
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional(timeout_s=LATER_S, **RULES[rule]):
                await write(db, "lost")
                with pytest.raises(TransactionTimeoutError):
                    await run(transactional(propagation=how, timeout_s=SOON_S), body)
        assert caught.value.__cause__ is not None


@BOTH_FACES
@pytest.mark.parametrize("rule", RULES)
async def test_statement_that_the_user_swallows(pg: PostgresJudge, run: Run, rule: str) -> None:
    async def body() -> str:
        await write(db, "lost")
        with contextlib.suppress(asyncio.CancelledError, DBAPIError):
            await sleep(db)
        return "done"

    async with gone_within_a_second(pg) as db:
        with pytest.raises((TransactionTimeoutError, UnexpectedRollbackError)):
            await run(transactional(timeout_s=SOON_S, **RULES[rule]), body)


@BOTH_FACES
async def test_wait_for_the_pool_is_within_the_limit(pg: PostgresJudge, run: Run) -> None:
    """The pool's one connection is somebody else's: for a caller's own nobody would wait."""
    async with gone_within_a_second(pg) as db:
        async with (await db.engine()).connect():
            with pytest.raises(TransactionTimeoutError):
                await run(new_context(timeout_s=SOON_S), lambda: write(db, "never"))


@BOTH_FACES
async def test_server_that_never_answers_is_within_the_limit(run: Run) -> None:
    connections: list[Any] = []
    silent = await asyncio.start_server(
        lambda *streams: connections.append(streams), "127.0.0.1", 0
    )
    port = silent.sockets[0].getsockname()[1]
    url = f"postgresql://somebody@127.0.0.1:{port}/app"
    async with Database(url, connect_args={"ssl": False}) as db:
        with pytest.raises(TransactionTimeoutError):
            await run(transactional(timeout_s=SOON_S), lambda: write(db, "never"))
        assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
    silent.close()
    for _, writer in connections:
        writer.close()


class TestSomebodyElsesCancellation:
    @BOTH_FACES
    async def test_outer_timeout_in_a_statement(self, pg: PostgresJudge, run: Run) -> None:
        async def body() -> None:
            await write(db, "lost")
            await sleep(db)

        async with gone_within_a_second(pg) as db:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(ENOUGH_S):
                    await run(transactional(timeout_s=LATER_S), body)
            assert type(caught.value) is TimeoutError

    @BOTH_FACES
    async def test_cancelled_task_in_a_statement(self, pg: PostgresJudge, run: Run) -> None:
        async def body() -> None:
            await write(db, "lost")
            await wait_for_row(db)

        async with locked_row(pg), gone_within_a_second(pg) as db:
            task = asyncio.create_task(run(transactional(timeout_s=LATER_S), body))
            await blocked(pg, "DELETE")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    @BOTH_FACES
    async def test_statement_that_an_operator_kills(self, pg: PostgresJudge, run: Run) -> None:
        """The server's answer is the same as to its own limit; the time is not over, though."""

        async def body() -> None:
            await write(db, "lost")
            await ask(db, "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)")

        async with gone_within_a_second(pg) as db:
            with pytest.raises(DBAPIError) as caught:
                await run(transactional(timeout_s=LATER_S), body)
            assert caught.value.orig.sqlstate == "57014"  # type: ignore[union-attr]


async def test_several_databases_are_rolled_back(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    async with transactional():
        assert await ask(db, "SELECT 1") == await ask(db2, "SELECT 1")
    with pytest.raises(TransactionTimeoutError):
        async with transactional(timeout_s=ENOUGH_S):
            await write(db, "lost")
            await write(db2, "lost")
            await sleep(db2)
    assert await until_idle(pg) < 1
    assert await until_idle(pg2) < 1
    assert (await pg.texts(), await pg2.texts()) == ([], [])


async def test_users_exception_out_of_the_statement_leaves_unchanged(pg: PostgresJudge) -> None:
    error = Boom()
    async with gone_within_a_second(pg) as db:
        with pytest.raises(Boom) as caught:
            async with transactional(timeout_s=SOON_S, no_rollback_for=Boom):
                try:
                    await write(db, "lost")
                    await sleep(db)
                except (asyncio.CancelledError, DBAPIError):
                    raise error from None
        assert caught.value is error
        assert any("timeout_s=0.05" in note for note in error.__notes__)


async def test_statement_cut_short_in_a_nested_call_takes_the_transaction_along(
    pg: PostgresJudge,
) -> None:
    """Scenario: the caller survives it, and goes on to its end.
    Outcome: it is told that the transaction went, and that a savepoint is no help."""

    @transactional(name="unit")
    async def unit(db: Database) -> None:
        await write(db, "lost")
        with pytest.raises(TransactionTimeoutError):
            await transactional(propagation="nested", timeout_s=ENOUGH_S, name="part")(sleep)(db)

    async with pool_of_one(pg) as db:
        with pytest.raises(UnexpectedRollbackError, match="cancelled during a statement") as caught:
            await unit(db)
        assert (caught.value.culprit, caught.value.how) == ("part", "lost")
        assert "requires_new" in str(caught.value)
        assert await pg.texts() == []
        await transactional(write)(db, "next")
