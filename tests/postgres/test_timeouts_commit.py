"""A deadline that passes while COMMIT is in flight: its answer is awaited, and told truthfully.

COMMIT is held up by a deferred trigger that sleeps on the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import DBAPIError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_timeouts import RULES
from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from tests.postgres.watching import pool_of_one
from txkit import (
    CommitOutcomeUnknownError,
    Database,
    after_commit,
    after_completion,
    after_rollback,
    transactional,
)

LIMIT_S, FINISH_S = 0.25, 0.15
PAST_THE_DEADLINE_S, FOR_EVER_S = 0.5, 60.0


async def slow_commits(pg: PostgresJudge, seconds: float, *, then: str = "") -> None:
    """Let the COMMIT of a note whose text begins with 'slow' take so long, and then fail or not."""
    await pg.fetch(
        "CREATE FUNCTION hold_up() RETURNS trigger AS $$ BEGIN"
        f" PERFORM pg_sleep({seconds}); {then} RETURN NULL; END $$ LANGUAGE plpgsql"
    )
    await pg.fetch(
        "CREATE CONSTRAINT TRIGGER hold_up AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.text LIKE 'slow%') EXECUTE FUNCTION hold_up()"
    )


@contextlib.asynccontextmanager
async def usable_afterwards(pg: PostgresJudge, finish_timeout_s: float) -> AsyncIterator[Database]:
    """Give a Database with a pool of one, and use it again at once."""
    async with pool_of_one(pg, finish_timeout_s=finish_timeout_s) as db:
        async with transactional():
            await ask(db, "SELECT 1")  # the connection is there
        yield db
        assert (await db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        async with transactional():
            await write(db, "next")
            assert await ask(db, "SHOW statement_timeout") == "0"


def listen(told: list[str]) -> None:
    after_commit(lambda: told.append("after commit"))
    after_rollback(lambda: told.append("after rollback"))
    after_completion(told.append)


@BOTH_FACES
@pytest.mark.parametrize("rule", RULES)
async def test_committed_returns_normally(pg: PostgresJudge, run: Run, rule: str) -> None:
    async def body() -> str:
        await write(db, "slow")
        listen(told)
        return "result"

    told: list[str] = []
    await slow_commits(pg, PAST_THE_DEADLINE_S)
    loop = asyncio.get_running_loop()
    async with usable_afterwards(pg, finish_timeout_s=10) as db:
        start = loop.time()
        assert await run(transactional(timeout_s=LIMIT_S, **RULES[rule]), body) == "result"
        assert loop.time() - start > PAST_THE_DEADLINE_S
        assert await pg.texts() == ["slow"]
        assert told == ["after commit", "committed"]


@BOTH_FACES
async def test_refused_raises_the_refusal(pg: PostgresJudge, run: Run) -> None:
    async def body() -> None:
        await write(db, "slow")
        listen(told)

    told: list[str] = []
    await slow_commits(pg, PAST_THE_DEADLINE_S, then="RAISE 'no such account';")
    async with usable_afterwards(pg, finish_timeout_s=10) as db:
        with pytest.raises(DBAPIError, match="no such account"):
            await run(transactional(timeout_s=LIMIT_S), body)
        assert await pg.texts() == []
        assert told == ["after rollback", "rolled_back"]


@BOTH_FACES
async def test_no_answer_is_an_unknown_outcome(pg: PostgresJudge, run: Run) -> None:
    """After ``finish_timeout_s`` from the deadline; the connection is discarded."""

    async def body() -> None:
        await write(db, "slow")
        listen(told)

    told: list[str] = []
    await slow_commits(pg, FOR_EVER_S)
    loop = asyncio.get_running_loop()
    async with usable_afterwards(pg, FINISH_S) as db:
        start = loop.time()
        with pytest.raises(CommitOutcomeUnknownError, match="import_day") as caught:
            await run(transactional(timeout_s=LIMIT_S, name="import_day"), body)
        assert LIMIT_S + FINISH_S <= loop.time() - start < 2
        error = caught.value
        assert (error.function, error.database) == ("import_day", db)
        assert error.__cause__ is not None
        assert not isinstance(error, TimeoutError)
        assert told == ["unknown"]
    assert "next" in await pg.texts()


@BOTH_FACES
async def test_users_exception_leaves_unchanged_where_the_rules_commit(
    pg: PostgresJudge, run: Run
) -> None:
    """Its commit is in flight at the deadline: committed all the same, or in doubt, with a note."""

    async def body() -> None:
        await write(db, "slow")
        listen(told)
        raise error

    told: list[str] = []
    await slow_commits(pg, PAST_THE_DEADLINE_S)
    for finish_s, outcome in ((10, "committed"), (0.05, "unknown")):
        error = Boom()
        told.clear()
        async with usable_afterwards(pg, finish_s) as db:
            with pytest.raises(Boom) as caught:
                await run(transactional(timeout_s=LIMIT_S, no_rollback_for=Boom), body)
        assert caught.value is error
        assert told[-1] == outcome
        notes = getattr(error, "__notes__", [])
        assert any("CommitOutcomeUnknownError" in one for one in notes) is (outcome == "unknown")
    assert "slow" in await pg.texts()


@BOTH_FACES
@pytest.mark.parametrize("options", [{}, {"timeout_s": 60}])
async def test_commit_before_the_deadline_has_all_its_time(
    pg: PostgresJudge, run: Run, options: dict[str, float]
) -> None:
    """``finish_timeout_s`` counts from the deadline, or from a cancellation; from nothing else."""
    await slow_commits(pg, PAST_THE_DEADLINE_S)
    async with usable_afterwards(pg, finish_timeout_s=0.05) as db:
        await run(transactional(**options), lambda: write(db, "slow"))
        assert await pg.texts() == ["slow"]


@BOTH_FACES
async def test_cancelled_meanwhile_is_finished_first(pg: PostgresJudge, run: Run) -> None:
    async def body() -> None:
        await write(db, "slow")

    await slow_commits(pg, PAST_THE_DEADLINE_S)
    async with usable_afterwards(pg, finish_timeout_s=10) as db:
        task = asyncio.create_task(run(transactional(timeout_s=LIMIT_S), body))
        committing = (
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND state = 'active'"
        )
        while not await pg.fetch(committing):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pg.texts() == ["slow"]
