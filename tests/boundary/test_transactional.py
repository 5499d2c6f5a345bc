"""@transactional and @new_context: who commits, who rolls back, who joins. On both backends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Place
from tests.notes import Boom, count, note, write
from txkit import (
    ConcurrentSessionUseError,
    ContextClosedError,
    Database,
    NoContextError,
    TransactionRequiredError,
    UnexpectedRollbackError,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    in_transaction,
    new_context,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    run_in_new_ctx,
    set_rollback_only,
    transactional,
)


async def test_return_commits_before_the_caller_goes_on(place: Place) -> None:
    @transactional
    async def unit() -> str:
        await write(place.db, "a")
        return "done"

    assert await unit() == "done"
    assert await place.texts() == ["a"]


async def test_exception_rolls_back_and_leaves_unchanged(place: Place) -> None:
    error = Boom("x")

    @transactional
    async def unit() -> None:
        await write(place.db, "a")
        raise error

    with pytest.raises(Boom) as caught:
        await unit()
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert await place.texts() == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_any_base_exception_rolls_back(place: Place, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        async with transactional():
            await write(place.db, "a")
            raise kind
    assert await place.texts() == []


async def test_session_is_the_same_everywhere_below(place: Place) -> None:
    @transactional
    async def inner() -> object:
        return await db_session(place.db)

    @transactional
    async def unit() -> None:
        session = await db_session(place.db)
        assert await inner() is session
        assert await asyncio.create_task(inner()) is session

    await unit()


async def test_joined_calls_share_one_transaction(place: Place) -> None:
    @transactional
    async def inner(words: str) -> None:
        await write(place.db, words)

    @transactional
    async def unit() -> None:
        await inner("a")
        await inner("b")
        assert await place.texts() == []

    await unit()
    assert await place.texts() == ["a", "b"]


async def test_decision_to_join_is_made_at_the_first_step(place: Place) -> None:
    """Scenario: coroutines are made inside a context and awaited after it, and the other way round.
    Outcome: what counts is where they run."""

    @transactional
    async def inner(words: str) -> None:
        await write(place.db, words)

    @transactional
    async def unit() -> object:
        return inner("made inside, run outside")

    await (await unit())  # type: ignore[misc]
    made_outside = inner("made outside, run inside")
    with pytest.raises(Boom):
        async with transactional():
            await made_outside
            raise Boom
    assert await place.texts() == ["made inside, run outside"]


class TestSwallowed:
    """A joined failure that the caller swallows dooms the unit."""

    async def test_unit_is_rolled_back_and_says_who_did_it(self, place: Place) -> None:
        error = Boom("why")

        @transactional
        async def culprit() -> None:
            raise error

        @transactional
        async def unit() -> str:
            await write(place.db, "a")
            with pytest.raises(Boom):
                await culprit()
            return "looks fine"

        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit()
        assert caught.value.__cause__ is error
        assert caught.value.function.endswith("unit")
        assert caught.value.culprit.endswith("culprit")
        assert caught.value.reason == "Boom: why"
        assert caught.value.culprit in str(caught.value)
        assert await place.texts() == []

    async def test_next_statement_is_refused(self, place: Place) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "a")
                with pytest.raises(Boom):
                    await culprit()
                with pytest.raises(UnexpectedRollbackError):
                    await write(place.db, "b")
        assert await place.texts() == []

    @pytest.mark.parametrize("by", ["function", "session"])
    async def test_commit_by_hand_is_refused_and_rollback_mends(
        self, place: Place, by: str
    ) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        async def end(operation: str) -> None:
            if by == "session":
                session = await db_session(place.db)
                await getattr(session, operation)()
            else:
                function = commit_db_session if operation == "commit" else rollback_db_session
                await function(place.db)

        async with transactional():
            await write(place.db, "lost")
            with pytest.raises(Boom):
                await culprit()
            with pytest.raises(UnexpectedRollbackError):
                await end("commit")
            await end("rollback")
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_session_begin_block_can_not_commit_what_is_doomed(self, place: Place) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        async with transactional():
            session = await db_session(place.db)
            with pytest.raises(UnexpectedRollbackError):
                async with session.begin():
                    await session.execute(insert(note).values(text="lost"))
                    with pytest.raises(Boom):
                        await culprit()
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_failure_that_leaves_the_boundary_is_judged_by_its_rules(
        self, place: Place
    ) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        @transactional(no_rollback_for=Boom)
        async def unit() -> None:
            await write(place.db, "kept")
            await culprit()

        with pytest.raises(Boom):
            await unit()
        assert await place.texts() == ["kept"]

    async def test_other_exception_that_would_commit_rolls_back_and_says_so(
        self, place: Place
    ) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        @transactional(no_rollback_for=KeyError)
        async def unit() -> None:
            await write(place.db, "lost")
            with pytest.raises(Boom):
                await culprit()
            raise KeyError("x")

        with pytest.raises(KeyError) as caught:
            await unit()
        assert "culprit" in caught.value.__notes__[0]
        assert await place.texts() == []

    async def test_exception_that_its_own_rules_allow_marks_nothing(self, place: Place) -> None:
        @transactional(no_rollback_for=Boom)
        async def harmless() -> None:
            await write(place.db, "a")
            raise Boom

        async with transactional():
            with pytest.raises(Boom):
                await harmless()
        assert await place.texts() == ["a"]


class TestPropagation:
    async def test_requires_new_commits_whatever_becomes_of_the_caller(self, place: Place) -> None:
        @transactional(propagation="requires_new")
        async def independent() -> None:
            await write(place.db, "kept")

        with pytest.raises(Boom):
            async with transactional():
                assert await db_session(place.db)
                await independent()
                raise Boom
        assert await place.texts() == ["kept"]

    async def test_callers_context_comes_back_after_requires_new_failed(self, place: Place) -> None:
        @new_context
        async def independent() -> None:
            await write(place.db, "lost")
            raise Boom

        async with transactional():
            session = await db_session(place.db)
            with pytest.raises(Boom):
                await independent()
            assert await db_session(place.db) is session
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_mandatory_without_a_context_does_not_enter_the_body(self) -> None:
        entered = False

        @transactional(propagation="mandatory")
        async def unit() -> None:
            nonlocal entered
            entered = True

        with pytest.raises(TransactionRequiredError) as caught:
            await unit()
        assert caught.value.function.endswith("unit")
        assert not entered

    async def test_mandatory_joins(self, place: Place) -> None:
        @transactional(propagation="mandatory")
        async def inner() -> None:
            await write(place.db, "a")

        async with transactional():
            await inner()
        assert await place.texts() == ["a"]

    async def test_refusal_marks_nothing(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "a")
            with pytest.raises(TypeError):
                transactional(lambda: None)  # type: ignore[arg-type, return-value]
        assert await place.texts() == ["a"]


class TestLazy:
    async def test_boundary_that_is_not_used_builds_no_engine(self) -> None:
        def build(host: str | None) -> AsyncEngine:
            raise AssertionError(host)

        db = Database(engine_factory=build)

        @transactional
        @atomic(db)
        async def unit() -> int:
            return 1

        assert await unit() == 1

    async def test_session_without_a_statement_takes_no_connection(self, place: Place) -> None:
        engine = await place.db.engine()
        async with transactional():
            await db_session(place.db)
            assert not in_transaction(place.db)
        assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]

    async def test_connection_is_back_when_the_call_returns(self, place: Place) -> None:
        pool = (await place.db.engine()).pool

        @transactional
        async def unit() -> None:
            await write(place.db, "a")
            assert pool.checkedout() == 1  # type: ignore[attr-defined]

        await unit()
        assert pool.checkedout() == 0  # type: ignore[attr-defined]


class TestByHand:
    async def test_early_commit_is_durable_and_the_session_stays(self, place: Place) -> None:
        with pytest.raises(Boom):
            async with transactional():
                session = await db_session(place.db)
                await write(place.db, "a")
                await commit_db_session(place.db)
                assert await place.texts() == ["a"]
                assert await db_session(place.db) is session
                await write(place.db, "b")
                raise Boom
        assert await place.texts() == ["a"]

    async def test_close_rolls_back_and_makes_a_new_session(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "lost")
            await close_db_session(place.db)
            assert await db_session(place.db) is not session
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_session_closed_directly_is_replaced(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "lost")
            await session.close()
            assert await db_session(place.db) is not session
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_nothing_open_is_nothing_to_do(self, place: Place) -> None:
        async with transactional():
            await commit_db_session(place.db)
            await rollback_db_session(place.db)
            await close_db_session(place.db)

    @pytest.mark.parametrize(
        "function", [db_session, commit_db_session, rollback_db_session, close_db_session]
    )
    async def test_outside_a_context_says_which_decorator_is_missing(
        self, place: Place, function: Callable[..., object]
    ) -> None:
        with pytest.raises(NoContextError, match="@transactional") as caught:
            await function(place.db)  # type: ignore[misc]
        assert caught.value.function == function.__name__

    async def test_late_task_gets_no_revived_session(self, place: Place) -> None:
        ended = asyncio.Event()

        async def late() -> None:
            await ended.wait()
            await db_session(place.db)

        async def late_decorated() -> None:
            await ended.wait()
            await transactional(write)(place.db, "its own")

        @transactional
        async def unit() -> list[asyncio.Task[None]]:
            return [asyncio.create_task(late()), asyncio.create_task(late_decorated())]

        tasks = await unit()
        ended.set()
        with pytest.raises(ContextClosedError) as caught:
            await tasks[0]
        assert caught.value.opened_by.endswith("unit")
        await tasks[1]
        assert await place.texts() == ["its own"]

    async def test_session_kept_beyond_its_boundary_is_loud(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            await write(place.db, "a")
        with pytest.raises(ContextClosedError):
            await session.execute(text("SELECT 1"))


class TestRollbackOnly:
    async def test_boundary_that_asks_returns_normally(self, place: Place) -> None:
        @transactional
        async def unit() -> str:
            await write(place.db, "a")
            set_rollback_only("dry run")
            await write(place.db, "b")
            assert await count(place.db) == 2
            return "result"

        assert await unit() == "result"
        assert await place.texts() == []

    async def test_joined_function_that_asks_makes_the_boundary_raise(self, place: Place) -> None:
        @transactional
        async def inner() -> None:
            set_rollback_only("no stock")
            await write(place.db, "still runs")

        @transactional
        async def unit() -> None:
            await write(place.db, "a")
            await inner()

        with pytest.raises(UnexpectedRollbackError, match="no stock") as caught:
            await unit()
        assert caught.value.culprit.endswith("inner")
        assert caught.value.__cause__ is None
        assert await place.texts() == []

    async def test_undecorated_helper_asks_for_its_decorated_caller(self, place: Place) -> None:
        async def helper() -> None:
            set_rollback_only()

        async with transactional():
            await write(place.db, "a")
            await helper()
        assert await place.texts() == []

    async def test_outside_a_context(self) -> None:
        with pytest.raises(NoContextError):
            set_rollback_only()


class TestOwnSessions:
    async def test_atomic_commits_and_rolls_back(self, place: Place) -> None:
        async with new_non_ctx_atomic_session(place.db) as session:
            await session.execute(insert(note).values(text="a"))
        with pytest.raises(Boom):
            async with new_non_ctx_atomic_session(place.db) as session:
                await session.execute(insert(note).values(text="b"))
                raise Boom
        assert await place.texts() == ["a"]

    async def test_plain_commits_only_by_hand(self, place: Place) -> None:
        async with new_non_ctx_session(place.db) as session:
            await session.execute(insert(note).values(text="a"))
            await session.commit()
            await session.execute(insert(note).values(text="b"))
        assert await place.texts() == ["a"]

    async def test_belongs_to_no_context(self, place: Place) -> None:
        async with transactional():
            async with new_non_ctx_session(place.db) as session:
                assert await db_session(place.db) is not session
            assert not in_transaction()

    async def test_run_in_new_ctx_commits_on_its_own(self, place: Place) -> None:
        with pytest.raises(Boom):
            async with transactional():
                assert await run_in_new_ctx(write, place.db, text="kept") is None
                raise Boom
        assert await place.texts() == ["kept"]


async def test_in_transaction_tells_what_is_open(place: Place) -> None:
    assert not in_transaction()
    async with transactional():
        assert not in_transaction(place.db)
        await write(place.db, "a")
        assert in_transaction(place.db)
        assert in_transaction()
        await commit_db_session(place.db)
        assert not in_transaction(place.db)


async def test_ended_context_keeps_nothing_alive(place: Place) -> None:
    """An idle connection in the pool keeps the ContextVars of the task that opened it."""

    class Held(Exception):
        pass

    @transactional
    async def culprit() -> weakref.ref[Held]:
        error = Held()
        seen.append(weakref.ref(error))
        raise error

    seen: list[weakref.ref[Held]] = []

    @transactional
    async def unit() -> None:
        await write(place.db, "a")
        try:
            await culprit()
        except Held:
            await rollback_db_session(place.db)

    await asyncio.create_task(unit())
    gc.collect()
    assert seen[0]() is None


async def test_sibling_that_is_still_connecting_leaks_nothing(place: Place) -> None:
    """Scenario: two tasks of one unit send the first statement at once.
    Outcome: the late one is refused, and the connection that the other one gets is discarded."""

    @transactional
    async def unit() -> None:
        await asyncio.gather(write(place.db, "a"), write(place.db, "b"))

    with pytest.raises(ConcurrentSessionUseError) as caught:
        await unit()
    assert not hasattr(caught.value, "__notes__")
    pool = (await place.db.engine()).pool
    while pool.checkedout():  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    await transactional(write)(place.db, "kept")
    assert await place.texts() == ["kept"]


@pytest.mark.parametrize("wrong", ["sqlite://", None])
async def test_what_is_no_database_is_told(wrong: object) -> None:
    async with transactional():
        with pytest.raises(TypeError, match=r"txkit\.Database"):
            await db_session(wrong)  # type: ignore[arg-type]
