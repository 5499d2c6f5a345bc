"""A deadline that passes during one COMMIT of several: early ones, and those of several Databases."""

from __future__ import annotations

import pytest

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.conftest import PostgresJudge
from tests.notes import write
from tests.postgres.test_timeouts_commit import (
    FINISH_S,
    FOR_EVER_S,
    LIMIT_S,
    PAST_THE_DEADLINE_S,
    listen,
    slow_commits,
    usable_afterwards,
)
from txkit import (
    CommitOutcomeUnknownError,
    Database,
    PartialCommitError,
    TransactionTimeoutError,
    atomic,
    commit_db_session,
    db_session,
    transactional,
)


@BOTH_FACES
@pytest.mark.parametrize("by", ["commit_db_session", "atomic"])
async def test_early_commit_in_flight_is_finished(pg: PostgresJudge, run: Run, by: str) -> None:
    """What it committed stays; the unit itself is over time, and goes no further."""

    async def body() -> None:
        if by == "atomic":
            await atomic(write)(db, "slow")
        else:
            await write(db, "slow")
            await commit_db_session(db)
        raise AssertionError

    await slow_commits(pg, PAST_THE_DEADLINE_S)
    async with usable_afterwards(pg, finish_timeout_s=10) as db:
        with pytest.raises(TransactionTimeoutError):
            await run(transactional(timeout_s=LIMIT_S), body)
        assert await pg.texts() == ["slow"]


@BOTH_FACES
@pytest.mark.parametrize("by", ["commit_db_session", "atomic", "session"])
async def test_early_commit_without_an_answer_is_an_unknown_outcome(
    pg: PostgresJudge, run: Run, by: str
) -> None:
    """Not a timeout: that would say that nothing was committed."""

    async def body() -> None:
        if by == "atomic":
            await atomic(write)(db, "slow")
        else:
            await write(db, "slow")
            session = await db_session(db)
            await (commit_db_session(db) if by == "commit_db_session" else session.commit())
        raise AssertionError

    await slow_commits(pg, FOR_EVER_S)
    async with usable_afterwards(pg, FINISH_S) as db:
        with pytest.raises(CommitOutcomeUnknownError):
            await run(transactional(timeout_s=LIMIT_S), body)


@BOTH_FACES
async def test_several_databases_are_committed_all(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge, run: Run
) -> None:
    """The second COMMIT goes out after the deadline: the first one has decided."""

    async def body() -> None:
        await write(db, "slow")
        await write(db2, "b")

    await slow_commits(pg, PAST_THE_DEADLINE_S)
    async with transactional():
        assert await ask(db, "SELECT 1") == await ask(db2, "SELECT 1")  # the connections are there
    await run(transactional(timeout_s=LIMIT_S), body)
    assert (await pg.texts(), await pg2.texts()) == (["slow"], ["b"])


@BOTH_FACES
async def test_no_answer_of_the_second_database(
    pg: PostgresJudge, pg2: PostgresJudge, run: Run
) -> None:
    async def body() -> None:
        await write(db, "a")
        await write(db2, "slow")
        listen(told)

    told: list[str] = []
    await slow_commits(pg2, FOR_EVER_S)
    async with usable_afterwards(pg, FINISH_S) as db, usable_afterwards(pg2, FINISH_S) as db2:
        with pytest.raises((CommitOutcomeUnknownError, PartialCommitError)) as caught:
            await run(transactional(timeout_s=LIMIT_S), body)
        if isinstance(caught.value, PartialCommitError):
            assert caught.value.committed == (db,)
            assert isinstance(caught.value.__cause__, CommitOutcomeUnknownError)
        assert told == ["unknown"]
        assert await pg.texts() == ["a"]
