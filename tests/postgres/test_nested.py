"""``nested`` over two databases, and the SQL that it sends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_nested import NESTED
from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.test_cancellation import blocked
from tests.postgres.watching import locked_row
from tests.postgres.wire import wired
from txkit import (
    AtomicControlError,
    Database,
    UnexpectedRollbackError,
    commit_db_session,
    db_session,
    in_transaction,
    set_rollback_only,
    transactional,
)


async def test_sends_nothing_for_itself(pg: PostgresJudge) -> None:
    """SAVEPOINT goes out with the first statement."""
    async with wired(pg) as (db, wire):
        async with transactional():
            await write(db, "a")
            wire.clear()
            async with NESTED:
                pass
            assert wire.sent == []


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("return", ["RELEASE SAVEPOINT"]),
        ("exception", ["ROLLBACK TO", "RELEASE SAVEPOINT"]),
        ("database error", ["ROLLBACK TO", "RELEASE SAVEPOINT"]),
        ("own request", ["ROLLBACK TO", "RELEASE SAVEPOINT"]),
    ],
)
async def test_savepoint_is_released_also_after_a_rollback(
    pg: PostgresJudge, how: str, end: list[str]
) -> None:
    async def body() -> None:
        await write(db, "inner")
        if how == "exception":
            raise Boom
        if how == "database error":
            await ask(db, "SELECT 1 / 0")
        if how == "own request":
            set_rollback_only()

    async with wired(pg) as (db, wire):
        async with transactional():
            await write(db, "before")
            wire.clear()
            if how in {"return", "own request"}:
                await NESTED(body)()
            else:
                with pytest.raises((Boom, DBAPIError)):
                    await NESTED(body)()
            failing = ["SELECT"] * (how == "database error")
            assert wire.verbs == ["SAVEPOINT", "INSERT", *failing, *end]
            savepoint = wire.sent[0].split()[1]
            assert all(one.endswith(savepoint) for one in wire.sent[-len(end) :])
            with pytest.raises(DBAPIError, match="does not exist"):
                await ask(db, f"ROLLBACK TO SAVEPOINT {savepoint}")
            await (await db_session(db)).rollback()


async def test_hundred_failures_leave_no_subtransaction(db: Database, pg: PostgresJudge) -> None:
    async with transactional():
        pid = await ask(db, "SELECT pg_backend_pid()")
        for number in range(100):
            with pytest.raises(Boom):
                async with NESTED:
                    await write(db, f"lost {number}")
                    raise Boom
        await write(db, "kept")
        counts = "SELECT s.* FROM pg_stat_get_backend_idset() id"
        counts += ", pg_stat_get_backend_subxact(id) s WHERE pg_stat_get_backend_pid(id) = $1"
        (found,) = await pg.fetch(counts, pid)
        assert (found["subxact_count"], found["subxact_overflowed"]) == (0, False)


@BOTH_FACES
async def test_failure_is_undone_on_every_database(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge, run: Run
) -> None:
    async def body() -> None:
        await write(db, "lost")
        await write(db2, "lost")
        raise Boom

    async with transactional():
        await write(db, "a")
        await write(db2, "b")
        with pytest.raises(Boom):
            await run(NESTED, body)
        await write(db, "c")
        await write(db2, "d")
    assert (await pg.texts(), await pg2.texts()) == (["a", "c"], ["b", "d"])


@BOTH_FACES
@pytest.mark.parametrize("how", ["exception", "own request", "swallowed failure"])
async def test_what_was_opened_inside_is_rolled_back_whole(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge, run: Run, how: str
) -> None:
    """Scenario: the second database comes into use in the nested call, which loses its work.
    Outcome: its transaction is over then and its connection free; the first one's goes on."""

    @transactional
    async def culprit() -> None:
        raise Boom

    async def body() -> None:
        await write(db, "lost")
        await write(db2, "lost")
        if how == "exception":
            raise Boom
        if how == "own request":
            set_rollback_only()
        else:
            with pytest.raises(Boom):
                await culprit()

    errors = {"exception": Boom, "swallowed failure": UnexpectedRollbackError}
    async with transactional():
        await write(db, "a")
        if how == "own request":
            await run(NESTED, body)
        else:
            with pytest.raises(errors[how]):
                await run(NESTED, body)
        assert (in_transaction(db), in_transaction(db2)) == (True, False)
        assert [state for _, state in await pg2.backends()] == ["idle"]
        assert (await db2.engine()).pool.checkedout() == 0
        await write(db2, "c")
        await write(db, "b")
    assert (await pg.texts(), await pg2.texts()) == (["a", "b"], ["c"])


@BOTH_FACES
@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_opened_inside_stays_open_and_is_the_boundarys(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge, run: Run, fails: bool
) -> None:
    async def body() -> None:
        await write(db2, "inner")

    async def unit() -> None:
        await write(db, "a")
        await run(NESTED, body)
        assert [state for _, state in await pg2.backends()] == ["idle in transaction"]
        assert await pg2.texts() == []
        if fails:
            raise Boom

    if fails:
        with pytest.raises(Boom):
            await transactional(unit)()
    else:
        await transactional(unit)()
    expected: tuple[Any, Any] = ([], []) if fails else (["a"], ["inner"])
    assert (await pg.texts(), await pg2.texts()) == expected


async def test_every_database_is_sealed(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    async with transactional():
        await write(db, "a")
        async with NESTED:
            await write(db2, "b")
            for one in (db, db2):
                with pytest.raises(AtomicControlError):
                    await commit_db_session(one)
                with pytest.raises(AtomicControlError):
                    await (await db_session(one)).rollback()
        await commit_db_session(db2)
        assert (await pg.texts(), await pg2.texts()) == ([], ["b"])
    assert await pg.texts() == ["a"]


async def test_cancelled_statement_inside_loses_the_connection_and_all_on_it(
    db: Database, pg: PostgresJudge
) -> None:
    """Scenario: a nested call is cancelled in a statement; its caller takes that back and goes on.
    Outcome: the driver has given the connection up, so that the whole transaction is refused."""

    async def cancel() -> None:
        await blocked(pg, "DELETE")
        task.cancel()

    task = asyncio.current_task()
    assert task is not None
    async with locked_row(pg):
        with pytest.raises(UnexpectedRollbackError) as at_the_end:
            async with transactional():
                await write(db, "lost")
                canceller = asyncio.create_task(cancel())
                with pytest.raises(asyncio.CancelledError) as cancelled:
                    async with NESTED:
                        await ask(db, "DELETE FROM note RETURNING id")
                task.uncancel()
                await canceller
                with pytest.raises(UnexpectedRollbackError):
                    await write(db, "refused")
        assert at_the_end.value.__cause__ is cancelled.value
        while await pg.fetch("SELECT 1 FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    assert await pg.texts() == ["locked"]
