"""Several Databases in one context: flushed first, committed in order of first use."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import event

from tests.boundary.test_atomic import Note
from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from txkit import (
    Database,
    PartialCommitError,
    UnexpectedRollbackError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    in_transaction,
    rollback_db_session,
    set_rollback_only,
    transactional,
)

REFUSE_COMMIT = (
    "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE 'refused'; END $$ LANGUAGE plpgsql"
)
TRIGGER = (
    "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION refuse()"
)


async def refuse_commits(pg: PostgresJudge) -> None:
    await pg.fetch(REFUSE_COMMIT)
    await pg.fetch(TRIGGER)


async def test_return_commits_both(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    async with transactional():
        await write(db, "a")
        await write(db2, "b")
    assert (await pg.texts(), await pg2.texts()) == (["a"], ["b"])


async def test_exception_rolls_back_both(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    with pytest.raises(Boom):
        async with transactional():
            await write(db, "a")
            await write(db2, "b")
            raise Boom
    assert (await pg.texts(), await pg2.texts()) == ([], [])


@pytest.mark.parametrize("turned", [False, True])
async def test_commits_in_order_of_first_use(db: Database, db2: Database, turned: bool) -> None:
    """Use is the first statement, not the first db_session."""
    first, second = (db2, db) if turned else (db, db2)
    order: list[str] = []
    for one in (db, db2):
        name = one.name
        event.listen((await one.engine()).sync_engine, "commit", lambda _, n=name: order.append(n))
    async with transactional():
        await db_session(db)
        await db_session(db2)
        await write(first, "a")
        await write(second, "b")
        await write(first, "c")
    assert order == [first.name, second.name]


async def test_failed_flush_commits_nothing(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    """All are flushed before the first COMMIT."""
    with pytest.raises(Exception, match="not-null"):
        async with transactional():
            await write(db, "a")
            await write(db2, "b")
            (await db_session(db2)).add(Note(text=None))  # type: ignore[arg-type]
    assert (await pg.texts(), await pg2.texts()) == ([], [])


async def test_refusal_after_a_commit_is_a_partial_commit(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    await refuse_commits(pg2)

    @transactional
    async def unit() -> None:
        await write(db, "a")
        await write(db2, "b")

    with pytest.raises(PartialCommitError, match="refused|'second' failed") as caught:
        await unit()
    error = caught.value
    assert (error.committed, error.failed, error.rolled_back) == ((db,), db2, ())
    assert error.function.endswith("unit")
    assert "refused" in str(error.__cause__)
    assert (await pg.texts(), await pg2.texts()) == (["a"], [])


async def test_refusal_of_the_first_rolls_back_the_rest(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    await refuse_commits(pg)
    with pytest.raises(Exception, match="refused") as caught:
        async with transactional():
            await write(db, "a")
            await write(db2, "b")
    assert not isinstance(caught.value, PartialCommitError)
    assert (await pg.texts(), await pg2.texts()) == ([], [])


async def test_block_over_two_databases(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    with pytest.raises(Boom):
        async with transactional():
            async with atomic(db, db2) as nothing:
                assert nothing is None
                await write(db, "a")
                await write(db2, "b")
            await write(db, "lost")
            raise Boom
    assert (await pg.texts(), await pg2.texts()) == (["a"], ["b"])


async def test_block_leaves_the_other_database_alone(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    async with transactional():
        await write(db2, "with the boundary")
        async with atomic(db):
            await write(db, "with the block")
            await write(db2, "with the boundary too")
            await commit_db_session(db2)
            assert len(await pg2.texts()) == 2
            assert await pg.texts() == []
        assert await pg.texts() == ["with the block"]


async def test_what_a_block_does_is_decided_before_the_first_is_touched(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    """Scenario: the first could be committed, the second has written.
    Outcome: refused, and the first is still open."""
    async with transactional():
        await (await db_session(db)).connection()
        await write(db2, "b")
        with pytest.raises(Exception, match="open transaction"):
            async with atomic(db, db2):
                raise AssertionError
        assert in_transaction(db)


async def test_rollback_by_hand_mends_only_its_database(
    db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    @transactional
    async def culprit() -> None:
        raise Boom

    with pytest.raises(UnexpectedRollbackError):
        async with transactional():
            await write(db, "a")
            await write(db2, "b")
            with pytest.raises(Boom):
                await culprit()
            await rollback_db_session(db)
            await write(db, "c")
            with pytest.raises(UnexpectedRollbackError):
                await write(db2, "d")
    assert (await pg.texts(), await pg2.texts()) == ([], [])


async def test_rollback_is_logged_with_its_reason_and_no_parameters(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "txkit"), pytest.raises(Boom):
        async with transactional(name="pay"):
            await write(db, "secret")
            raise Boom("secret")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "pay: rolled back (Boom left it)")
    ]


async def test_every_rollback_is_logged(
    db: Database, pg: PostgresJudge, caplog: pytest.LogCaptureFixture
) -> None:
    await refuse_commits(pg)
    with caplog.at_level(logging.INFO, "txkit"), pytest.raises(Exception, match="refused"):
        async with transactional(name="pay"), atomic(db):
            await write(db, "a")
            with pytest.raises(Boom):
                async with atomic(db):
                    await write(db, "b")
                    raise Boom
    to_savepoint, commit_refused = (record.getMessage() for record in caplog.records)
    assert to_savepoint.endswith("rolled back (to its savepoint: Boom left it)")
    assert "rolled back (the commit on <Database 'first'" in commit_refused


async def test_killed_backend_in_the_body_leaves_a_usable_pool(
    db: Database, pg: PostgresJudge
) -> None:
    """The user's exception leaves unchanged, the connection is discarded."""
    with pytest.raises(Boom):
        async with transactional():
            await write(db, "lost")
            [(pid, _)] = await pg.backends()
            await pg.fetch("SELECT pg_terminate_backend($1, 5000)", pid)
            raise Boom
    async with transactional():
        await write(db, "kept")
    assert await pg.texts() == ["kept"]


class TestInnermostUnit:
    async def test_block_inside_a_savepoint_of_another_database_is_the_innermost(
        self, db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
    ) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        async with transactional():
            session = await db_session(db)
            await write(db, "kept")
            async with session.begin_nested():
                with pytest.raises(UnexpectedRollbackError):
                    async with atomic(db2):
                        await write(db2, "lost")
                        with pytest.raises(Boom):
                            await culprit()
        assert (await pg.texts(), await pg2.texts()) == (["kept"], [])

    async def test_inner_savepoint_of_another_database_contains_the_failure(
        self, db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
    ) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        async with transactional():
            first, second = await db_session(db), await db_session(db2)
            async with second.begin_nested():
                await write(db2, "kept")
                with pytest.raises(Boom):
                    async with first.begin_nested():
                        await write(db, "lost")
                        await culprit()
        assert (await pg.texts(), await pg2.texts()) == ([], ["kept"])

    async def test_pending_object_counts_as_use(
        self, db: Database, db2: Database, pg2: PostgresJudge
    ) -> None:
        @transactional
        async def culprit() -> None:
            (await db_session(db2)).add(Note(text="half"))
            raise Boom

        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                with pytest.raises(Boom):
                    async with atomic(db):
                        await culprit()
        assert await pg2.texts() == []

    async def test_what_was_committed_by_hand_before_the_failure_is_not_doomed(
        self, db: Database, db2: Database, pg: PostgresJudge, pg2: PostgresJudge
    ) -> None:
        @transactional
        async def culprit() -> None:
            await write(db2, "kept")
            await commit_db_session(db2)
            raise Boom

        async with transactional():
            session = await db_session(db)
            await write(db, "kept")
            with pytest.raises(Boom):
                async with session.begin_nested():
                    await culprit()
        assert (await pg.texts(), await pg2.texts()) == (["kept"], ["kept"])

    @pytest.mark.parametrize("by", ["rollback", "close", "block"])
    async def test_request_is_fulfilled_for_one_database_alone(
        self, db: Database, db2: Database, pg2: PostgresJudge, by: str
    ) -> None:
        async with transactional():
            set_rollback_only("no")
            await write(db, "lost")
            await write(db2, "must not")
            if by == "rollback":
                await rollback_db_session(db)
            elif by == "close":
                await close_db_session(db)
            else:
                async with atomic(db, current_transaction="rollback"):
                    pass
        assert await pg2.texts() == []


async def test_commit_first_over_several_flushes_all_before_the_first_commit(
    db: Database, db2: Database, pg: PostgresJudge
) -> None:
    async with transactional():
        await write(db, "lost")
        (await db_session(db2)).add(Note(text=None))  # type: ignore[arg-type]
        with pytest.raises(Exception, match="not-null"):
            async with atomic(db, db2, current_transaction="commit"):
                raise AssertionError
        assert await pg.texts() == []
        await rollback_db_session(db)
        await rollback_db_session(db2)
    assert await pg.texts() == []
