"""@atomic: a transaction of its own, a savepoint inside another block. On both backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.conftest import Place
from tests.notes import Boom, count, write
from txkit import (
    AtomicControlError,
    Database,
    OpenTransactionError,
    UnexpectedRollbackError,
    atomic,
    atomic_db_session,
    close_db_session,
    commit_db_session,
    db_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def test_commits_without_waiting_for_the_boundary(place: Place) -> None:
    @atomic(place.db)
    async def step() -> None:
        await write(place.db, "kept")

    with pytest.raises(Boom):
        async with transactional():
            await step()
            assert await place.texts() == ["kept"]
            await write(place.db, "lost")
            raise Boom
    assert await place.texts() == ["kept"]


async def test_exception_rolls_the_block_back_and_the_caller_may_go_on(place: Place) -> None:
    @atomic
    async def step() -> None:
        await write(place.db, "lost")
        raise Boom

    async with transactional():
        with pytest.raises(Boom):
            await step()
        await write(place.db, "kept")
    assert await place.texts() == ["kept"]


async def test_outside_a_context_opens_one_for_itself(place: Place) -> None:
    async with atomic(place.db) as session:
        assert session is await db_session(place.db)
        await write(place.db, "a")
    with pytest.raises(Boom):
        async with atomic(place.db):
            await write(place.db, "b")
            raise Boom
    assert await place.texts() == ["a"]


async def test_bare_covers_what_comes_into_use_inside(place: Place) -> None:
    with pytest.raises(Boom):
        async with transactional():
            async with atomic as nothing:
                assert nothing is None
                await write(place.db, "kept")
            assert await place.texts() == ["kept"]
            raise Boom
    assert await place.texts() == ["kept"]


class TestNested:
    async def test_inner_failure_loses_only_its_own(self, place: Place) -> None:
        async with transactional():
            async with atomic(place.db):
                await write(place.db, "a")
                with pytest.raises(Boom):
                    async with atomic(place.db):
                        await write(place.db, "lost")
                        raise Boom
                async with atomic(place.db):
                    await write(place.db, "b")
                assert await place.texts() == []
        assert await place.texts() == ["a", "b"]

    async def test_outer_failure_loses_all(self, place: Place) -> None:
        with pytest.raises(Boom):
            async with atomic(place.db):
                async with atomic(place.db):
                    await write(place.db, "a")
                raise Boom
        assert await place.texts() == []

    async def test_three_levels_with_a_bare_one_and_late_use(self, place: Place) -> None:
        """A Database that comes into use deep inside gets a savepoint on every level."""
        async with transactional():
            async with atomic:
                with pytest.raises(Boom):
                    async with atomic:
                        async with atomic(place.db):
                            await write(place.db, "lost")
                        assert await place.texts() == []
                        raise Boom
                assert await count(place.db) == 0
                await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_one_object_entered_inside_itself(self, place: Place) -> None:
        block = atomic(place.db)
        async with block:
            await write(place.db, "a")
            with pytest.raises(Boom):
                async with block:
                    await write(place.db, "lost")
                    raise Boom
        assert await place.texts() == ["a"]


async def read(db: Database) -> None:
    await count(db)


async def add_only(db: Database) -> None:
    (await db_session(db)).add(Note(text="pending"))


async def write_one(db: Database) -> None:
    await write(db, "before")


MODES: list[tuple[str, bool, list[str], list[str]]] = [
    # mode, the block succeeds, rows seen right after the block, rows after the boundary failed
    ("commit", True, ["before", "block"], ["before", "block"]),
    ("commit", False, ["before"], ["before"]),
    ("rollback", True, ["block"], ["block"]),
    ("rollback", False, [], []),
    ("append", True, ["before", "block"], ["before", "block"]),
    ("append", False, [], []),
    ("savepoint", True, [], []),
    ("savepoint", False, [], []),
]


class TestOpenTransaction:
    @pytest.mark.parametrize(("mode", "succeeds", "then", "in_the_end"), MODES)
    async def test_mode_decides(
        self, place: Place, mode: str, succeeds: bool, then: list[str], in_the_end: list[str]
    ) -> None:
        @atomic(place.db, current_transaction=mode)
        async def block() -> None:
            await write(place.db, "block")
            if not succeeds:
                raise ValueError

        with pytest.raises(Boom):
            async with transactional():
                await write(place.db, "before")
                try:
                    await block()
                except ValueError:
                    assert not succeeds
                assert await place.texts() == then
                raise Boom
        assert await place.texts() == in_the_end

    async def test_savepoint_is_durable_with_the_boundary(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "before")
            with pytest.raises(Boom):
                async with atomic(place.db, current_transaction="savepoint"):
                    await write(place.db, "lost")
                    raise Boom
            async with atomic(place.db, current_transaction="savepoint"):
                await write(place.db, "block")
        assert await place.texts() == ["before", "block"]

    @pytest.mark.parametrize("before", [read, write_one, add_only])
    async def test_raise_refuses_a_transaction_of_any_kind(
        self, place: Place, before: Callable[[Database], Awaitable[None]]
    ) -> None:
        async with transactional():
            await before(place.db)
            with pytest.raises(OpenTransactionError) as caught:
                async with atomic(place.db, current_transaction="raise"):
                    raise AssertionError
            assert caught.value.database is place.db

    async def test_left_out_commits_what_only_read(self, place: Place) -> None:
        async with transactional():
            await read(place.db)
            async with atomic(place.db):
                await write(place.db, "a")
            assert await place.texts() == ["a"]

    @pytest.mark.parametrize("before", [write_one, add_only])
    async def test_left_out_refuses_what_would_be_lost_or_revealed(
        self, place: Place, before: Callable[[Database], Awaitable[None]]
    ) -> None:
        async with transactional():
            await before(place.db)
            with pytest.raises(OpenTransactionError, match="'append'") as caught:
                async with atomic(place.db):
                    raise AssertionError
            assert isinstance(caught.value, InvalidRequestError)
            assert await place.texts() == []
        assert len(await place.texts()) == 1

    async def test_left_out_refuses_to_end_a_session_begin_block(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            async with session.begin():
                await count(place.db)
                with pytest.raises(OpenTransactionError, match=r"session\.begin"):
                    async with atomic(place.db):
                        raise AssertionError

    async def test_left_out_refuses_to_end_a_users_savepoint(self, place: Place) -> None:
        async with transactional():
            session = await db_session(place.db)
            async with session.begin_nested():
                await count(place.db)
                with pytest.raises(OpenTransactionError, match="savepoint"):
                    async with atomic(place.db):
                        raise AssertionError

    async def test_seeds_block_commits_first_when_left_out(self, place: Place) -> None:
        async with transactional():
            await write(place.db, "before")
            async with atomic_db_session(place.db) as session:
                assert session is await db_session(place.db)
                assert await place.texts() == ["before"]
                async with atomic_db_session(place.db):
                    await write(place.db, "block")
                assert await place.texts() == ["before"]
            assert await place.texts() == ["before", "block"]

    def test_unknown_mode_is_refused_when_decorating(self) -> None:
        with pytest.raises(ValueError, match="'append'"):
            atomic(current_transaction="join")


CONTROLS: dict[str, Callable[[Database, AsyncSession], Awaitable[object]]] = {
    "commit_db_session": lambda db, _: commit_db_session(db),
    "rollback_db_session": lambda db, _: rollback_db_session(db),
    "close_db_session": lambda db, _: close_db_session(db),
    "session.commit": lambda _, session: session.commit(),
    "session.rollback": lambda _, session: session.rollback(),
    "session.close": lambda _, session: session.close(),
    "session.reset": lambda _, session: session.reset(),
    "session.invalidate": lambda _, session: session.invalidate(),
    "session.begin": lambda _, session: session.begin(),
    "current_transaction": lambda db, _: atomic(db, current_transaction="commit").__aenter__(),
    "bare with a mode": lambda _, __: atomic(current_transaction="append").__aenter__(),
}


@pytest.mark.parametrize("control", CONTROLS)
async def test_block_is_sealed_and_survives_a_refusal(place: Place, control: str) -> None:
    async def begin(session: AsyncSession) -> None:
        await session.begin()

    async with transactional():
        async with atomic(place.db) as session:
            await write(place.db, "a")
            with pytest.raises(AtomicControlError) as caught:
                if control == "session.begin":
                    await begin(session)
                else:
                    await CONTROLS[control](place.db, session)
            assert "test_atomic" in caught.value.function
            async with session.begin_nested():
                await write(place.db, "b")
            assert await place.texts() == []
    assert await place.texts() == ["a", "b"]


class TestRollbackOnly:
    async def test_block_that_asked_loses_only_its_own(self, place: Place) -> None:
        async with transactional():
            async with atomic(place.db):
                await write(place.db, "lost")
                set_rollback_only()
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_savepoint_that_asked_loses_only_its_own(self, place: Place) -> None:
        async with atomic(place.db):
            await write(place.db, "a")
            async with atomic(place.db):
                await write(place.db, "lost")
                set_rollback_only()
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]

    async def test_joined_failure_dooms_the_innermost_block_only(self, place: Place) -> None:
        @transactional
        async def culprit() -> None:
            await write(place.db, "lost")
            raise Boom

        async with transactional():
            async with atomic(place.db):
                await write(place.db, "a")
                with pytest.raises(UnexpectedRollbackError) as caught:
                    async with atomic(place.db):
                        await write(place.db, "lost")
                        with pytest.raises(Boom):
                            await culprit()
                assert isinstance(caught.value.__cause__, Boom)
                await write(place.db, "b")
        assert await place.texts() == ["a", "b"]

    async def test_joined_failure_that_leaves_the_block_is_contained(self, place: Place) -> None:
        @transactional
        async def culprit() -> None:
            await write(place.db, "lost")
            raise Boom

        async with transactional():
            with pytest.raises(Boom):
                async with atomic(place.db):
                    await culprit()
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_doomed_transaction_can_not_be_committed_first(self, place: Place) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        with pytest.raises(UnexpectedRollbackError):
            async with transactional():
                await write(place.db, "lost")
                with pytest.raises(Boom):
                    await culprit()
                async with atomic(place.db, current_transaction="commit"):
                    raise AssertionError
        assert await place.texts() == []


async def test_orm_changes_are_flushed_with_their_block(place: Place) -> None:
    async with transactional():
        async with atomic(place.db) as session:
            session.add(Note(text="a"))
            with pytest.raises(Boom):
                async with atomic(place.db):
                    session.add(Note(text="lost"))
                    await session.flush()
                    raise Boom
            async with atomic(place.db):
                session.add(Note(text="b"))
    assert await place.texts() == ["a", "b"]


async def test_refused_commit_rolls_the_block_back(place: Place) -> None:
    async with transactional():
        with pytest.raises(Exception, match="NOT NULL|not-null"):
            async with atomic(place.db) as session:
                session.add(Note(text="a"))
                await session.flush()
                session.add(Note(text=None))  # type: ignore[arg-type]
        await (await db_session(place.db)).execute(text("SELECT 1"))
        await write(place.db, "kept")
    assert await place.texts() == ["kept"]


async def test_open_stream_is_found_on_both(place: Place) -> None:
    async with transactional():
        for number in range(50):
            await write(place.db, str(number))
    async with transactional():
        session = await db_session(place.db)
        result = await session.stream(text("SELECT id FROM note"))
        await result.fetchone()
        with pytest.raises(OpenTransactionError, match="streamed"):
            async with atomic(place.db):
                raise AssertionError
        await result.close()
