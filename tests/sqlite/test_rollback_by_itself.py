"""SQLite ends a transaction by itself (OR ROLLBACK, RAISE(ROLLBACK), a full disk): no savepoint undoes that."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.conftest import SqliteJudge
from tests.notes import write
from txkit import (
    Database,
    UnexpectedRollbackError,
    after_completion,
    atomic,
    db_session,
    transactional,
)

REFUSING = """
CREATE TRIGGER refusing BEFORE INSERT ON note WHEN new.text = 'refused'
BEGIN SELECT RAISE(ROLLBACK, 'refused'); END
"""


async def part(db: Database, kind: str) -> Any:
    if kind == "savepoint":
        return (await db_session(db)).begin_nested()
    if kind == "nested":
        return transactional(propagation="nested")
    return atomic(db, current_transaction="savepoint")


@pytest.mark.parametrize("kind", ["savepoint", "nested", "atomic"])
async def test_what_a_savepoint_can_not_undo_dooms_the_unit(
    lite: Database, sqlite_judge: SqliteJudge, kind: str
) -> None:
    """Scenario: the error has taken the whole transaction; what the unit writes afterwards
    would be durable at once, without what came before.
    Outcome: the next statement is refused, and nothing is reported as committed."""
    told: list[str] = []
    async with transactional():
        await (await db_session(lite)).execute(text(REFUSING))
    with pytest.raises(UnexpectedRollbackError) as caught:
        async with transactional():
            after_completion(told.append)
            await write(lite, "lost")
            with contextlib.suppress(DBAPIError):
                async with await part(lite, kind):
                    await write(lite, "refused")
            with pytest.raises(UnexpectedRollbackError):
                await write(lite, "never sent")
    assert "refused" in str(caught.value.__cause__)
    assert await sqlite_judge.texts() == []
    assert told == ["rolled_back"]
