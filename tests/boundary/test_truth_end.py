"""What the end says of a swallowed database error: the first one, and only where it would have committed.

On both backends.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from tests.boundary.mistakes import statement, swallowed
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    UnexpectedRollbackError,
    atomic,
    db_session,
    set_rollback_only,
    transactional,
)


class TestFirstError:
    async def test_is_told_and_not_the_last(self, place: Place) -> None:
        """A second error, made on the connection that is at hand, changes nothing."""
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                session = await db_session(place.db)
                connection = await session.connection()
                with swallowed() as first:
                    await statement(session)
                with swallowed():
                    await connection.execute(text("SELECT * FROM missing_too"))
        assert caught.value.__cause__ is first.error
        assert "missing_too" not in caught.value.reason

    async def test_says_nothing_of_parameters(self, place: Place) -> None:
        secret = "a password, perhaps"
        with pytest.raises(UnexpectedRollbackError) as caught:
            async with transactional():
                session = await db_session(place.db)
                with swallowed():
                    await session.execute(
                        text("SELECT * FROM missing WHERE 'x' = :x"), {"x": secret}
                    )
        assert secret not in str(caught.value) + caught.value.reason


class TestReturnsAllTheSame:
    """The error replaces only an end that would have committed."""

    async def test_where_the_unit_asked_for_the_rollback(self, place: Place) -> None:
        @transactional
        async def unit() -> str:
            await write(place.db, "lost")
            with swallowed():
                await statement(await db_session(place.db))
            set_rollback_only("it is no use")
            return "result"

        assert await unit() == "result"
        assert await place.texts() == []

    @pytest.mark.parametrize("asked_first", [False, True])
    async def test_where_a_block_asked_for_it(self, place: Place, asked_first: bool) -> None:
        async with transactional():
            async with atomic(place.db) as session:
                await write(place.db, "lost")
                if asked_first:
                    set_rollback_only()
                with swallowed():
                    await statement(session)
                if not asked_first:
                    set_rollback_only()
            await write(place.db, "kept")
        assert await place.texts() == ["kept"]

    async def test_where_the_outcome_rule_says_failure(self, place: Place) -> None:
        @transactional(outcome=lambda result, error: result == "good")
        async def unit() -> str:
            await write(place.db, "lost")
            with swallowed():
                await statement(await db_session(place.db))
            return "bad"

        assert await unit() == "bad"
        assert await place.texts() == []

    @pytest.mark.parametrize("rule", ["no_rollback_for", "outcome"])
    async def test_users_exception_leaves_though_its_rule_would_commit(
        self, place: Place, rule: str
    ) -> None:
        """With a database error swallowed earlier the truth wins over the rule."""
        rules: dict[str, Any] = {"no_rollback_for": Boom, "outcome": lambda *_: True}

        @transactional(**{rule: rules[rule]})
        async def unit() -> None:
            await write(place.db, "lost")
            with swallowed():
                await statement(await db_session(place.db))
            raise Boom

        with pytest.raises(Boom) as caught:
            await unit()
        assert "rolled back although the rules would commit" in "".join(caught.value.__notes__)
        assert await place.texts() == []

    async def test_error_itself_leaves_unchanged(self, place: Place) -> None:
        with pytest.raises(Exception, match="missing") as caught:
            async with transactional(no_rollback_for=Exception):
                await write(place.db, "lost")
                with swallowed() as first:
                    await statement(await db_session(place.db))
                raise first.error
        assert caught.value is first.error
        assert await place.texts() == []
