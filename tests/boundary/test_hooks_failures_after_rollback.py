"""after_* hooks that fail after a rollback: noted on what leaves, or raised where nothing would.

On both backends.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.boundary.test_hooks_failures import failing
from tests.conftest import Place
from tests.notes import Boom, write
from tests.ways import (
    ROLLBACKS,
    End,
    Unit,
    each,
    transaction_rollback,
)
from txkit import (
    AfterCommitError,
    Database,
    UnexpectedRollbackError,
    after_commit,
    after_completion,
    after_rollback,
    atomic,
    db_session,
    set_rollback_only,
    transactional,
)


@asynccontextmanager
async def boundary(_: Database) -> AsyncIterator[None]:
    async with transactional():
        yield


@asynccontextmanager
async def block(db: Database) -> AsyncIterator[None]:
    async with transactional(), atomic(db):
        yield


@asynccontextmanager
async def savepoint(db: Database) -> AsyncIterator[None]:
    async with transactional():
        await write(db, "lost")
        async with atomic(db, current_transaction="savepoint"):
            yield


@asynccontextmanager
async def nested(db: Database) -> AsyncIterator[None]:
    async with transactional():
        await write(db, "lost")
        async with transactional(propagation="nested"):
            yield


every_unit = each("unit", [boundary, block, savepoint, nested])


@every_unit
class TestUnit:
    async def test_exception_that_leaves_carries_the_failures(
        self, place: Place, unit: Unit
    ) -> None:
        told: list[str] = []
        with pytest.raises(Boom, match="the user's") as caught:
            async with unit(place.db):
                await write(place.db, "lost")
                after_rollback(failing(KeyError("first")))
                after_completion(failing(ValueError("second"), is_async=False))
                after_completion(told.append)
                after_commit(failing(Boom("never")))
                raise Boom("the user's")
        first, second = caught.value.__notes__
        assert "KeyError: 'first'" in first
        assert "ValueError: second" in second
        assert "rolled_back" in first
        assert told == ["rolled_back"]

    async def test_request_that_would_return_raises_them_as_a_group(
        self, place: Place, unit: Unit
    ) -> None:
        told: list[str] = []
        first, second = KeyError("first"), ValueError("second")
        with pytest.raises(ExceptionGroup, match="rollback") as caught:
            async with unit(place.db):
                await write(place.db, "lost")
                after_rollback(failing(first))
                after_completion(told.append)
                after_completion(failing(second))
                set_rollback_only()
        assert not isinstance(caught.value, AfterCommitError)
        assert caught.value.exceptions == (first, second)
        assert told == ["rolled_back"]
        assert await place.texts() == []

    async def test_unexpected_rollback_carries_the_failures(self, place: Place, unit: Unit) -> None:
        @transactional
        async def culprit() -> None:
            raise Boom

        with pytest.raises(UnexpectedRollbackError) as caught:
            async with unit(place.db):
                await write(place.db, "lost")
                after_rollback(failing(KeyError("hook")))
                with pytest.raises(Boom):
                    await culprit()
        [line] = caught.value.__notes__
        assert "KeyError: 'hook'" in line


@each("rollback", ROLLBACKS)
async def test_rollback_by_hand_raises_them_and_the_unit_goes_on(
    place: Place, rollback: End
) -> None:
    """Through SQLAlchemy's own objects it can't be raised there: it comes with the end."""
    error = KeyError("hook")

    async def unit() -> None:
        async with transactional():
            await write(place.db, "lost")
            after_rollback(failing(error))
            if rollback is transaction_rollback:
                await rollback(place.db)
            else:
                with pytest.raises(ExceptionGroup) as caught:
                    await rollback(place.db)
                assert caught.value.exceptions == (error,)
                assert not isinstance(caught.value, AfterCommitError)
            await write(place.db, "kept")

    if rollback is transaction_rollback:
        with pytest.raises(ExceptionGroup) as caught:
            await unit()
        assert caught.value.exceptions == (error,)
    else:
        await unit()
    assert await place.texts() == ["kept"]


class TestSavepointInAUnitThatCommits:
    @pytest.mark.parametrize("swallowed", [False, True])
    async def test_failure_of_its_hook_is_told_and_no_commit_called_a_rollback(
        self, place: Place, swallowed: bool
    ) -> None:
        """Scenario: the user's own savepoint is rolled back, by an exception that is caught or by
        hand, its hook fails, and the boundary commits.
        Outcome: the failure is on that exception, or leaves the unit; what leaves never says that
        the committed unit was rolled back."""
        failure = KeyError("hook")
        noted: list[str] = []

        @transactional
        async def unit() -> None:
            await write(place.db, "kept")
            session = await db_session(place.db)
            if swallowed:
                try:
                    async with session.begin_nested():
                        after_rollback(failing(failure))
                        raise Boom
                except Boom as error:
                    noted.extend(getattr(error, "__notes__", []))
            else:
                savepoint = await session.begin_nested()
                after_rollback(failing(failure))
                await savepoint.rollback()

        left: list[ExceptionGroup] = []
        try:
            await unit()
        except ExceptionGroup as error:
            left.append(error)
        assert noted or left
        for error in left:
            assert error.exceptions == (failure,)
            assert isinstance(error, AfterCommitError) or "was rolled back" not in str(error)
        assert await place.texts() == ["kept"]


async def test_exception_that_takes_no_note_leaves_all_the_same(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    with caplog.at_level(logging.WARNING, "txkit"), pytest.raises(Frozen):
        async with transactional():
            await write(place.db, "lost")
            after_rollback(failing(KeyError("hook")))
            raise Frozen(3)
    [record] = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
