"""Hooks that may fail: robust ones, and those of an end by hand whose error is caught.

On both backends.
"""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.boundary.test_hooks_failures import failing
from tests.conftest import Place
from tests.notes import Boom, write
from tests.ways import COMMITS, End, commit_first, each, seeds_block, session_commit, sync_commit
from txkit import AfterCommitError, after_commit, commit_db_session, db_session, transactional


class TestRobust:
    async def test_failure_is_logged_and_nothing_raised(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[str] = []

        @transactional(name="pay")
        async def unit() -> str:
            await write(place.db, "kept")
            after_commit(failing(Boom("sync"), is_async=False), robust=True)

            @after_commit(robust=True)
            async def fails() -> None:
                await asyncio.sleep(0)
                raise Boom("async")

            after_commit(lambda: told.append("after"))
            return "result"

        with caplog.at_level(logging.ERROR, "txkit"):
            assert await unit() == "result"
        assert told == ["after"]
        logged = [(record.levelname, record.name) for record in caplog.records]
        assert logged == [("ERROR", "txkit")] * 2
        assert all("pay" in record.getMessage() for record in caplog.records)
        errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert [str(error) for error in errors] == ["sync", "async"]

    async def test_only_the_others_are_raised(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(AfterCommitError) as caught:
            async with transactional():
                await write(place.db, "kept")
                after_commit(failing(Boom("logged")), robust=True)
                after_commit(failing(Boom("raised")))
        assert [str(error) for error in caught.value.exceptions] == ["raised"]
        assert len(caplog.records) == 1

    async def test_unit_that_does_not_fail_logs_nothing(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with transactional():
            await write(place.db, "kept")
            after_commit(lambda: None, robust=True)
        assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


class TestByHand:
    @each("commit", [commit_db_session, session_commit, sync_commit, commit_first, seeds_block])
    async def test_raised_once_by_the_call_that_committed(self, place: Place, commit: End) -> None:
        """Who catches it goes on in the same unit."""
        told: list[str] = []
        async with transactional():
            await write(place.db, "a")
            after_commit(failing(Boom("hook")))
            after_commit(lambda: told.append("after"))
            with pytest.raises(AfterCommitError) as caught:
                await commit(place.db)
            assert [str(error) for error in caught.value.exceptions] == ["hook"]
            assert caught.value.result is None
            assert told == ["after"]
            assert await place.texts() == ["a"]
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]

    @each("commit", COMMITS)
    async def test_left_uncaught_the_unit_rolls_back_what_came_after_it(
        self, place: Place, commit: End
    ) -> None:
        """From a commit through SQLAlchemy's own objects it comes with the end of the unit."""
        with pytest.raises(AfterCommitError) as caught:
            async with transactional():
                await write(place.db, "a")
                after_commit(failing(Boom("hook")))
                await commit(place.db)
        assert [str(error) for error in caught.value.exceptions] == ["hook"]
        assert await place.texts() == ["a"]

    async def test_end_of_a_session_begin_loses_no_failure(self, place: Place) -> None:
        with pytest.raises(AfterCommitError) as caught:
            async with transactional():
                async with (await db_session(place.db)).begin():
                    await write(place.db, "a")
                    after_commit(failing(Boom("hook")))
        assert [str(error) for error in caught.value.exceptions] == ["hook"]
        assert await place.texts() == ["a"]
