"""A listener of the user's at the end of a transaction may send what it likes."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from tests.conftest import SqliteJudge
from tests.notes import Boom, write
from txkit import Database, transactional


@pytest.mark.parametrize("first", [True, False])
async def test_statement_of_a_commit_listener_is_a_part_of_it(
    lite: Database, sqlite_judge: SqliteJudge, first: bool
) -> None:
    engine = (await lite.engine()).sync_engine

    def audit(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO note (text) VALUES ('audit')")

    event.listen(engine, "commit", audit, insert=first)
    for _ in range(2):
        await transactional(write)(lite, "kept")
    assert await sqlite_judge.texts() == ["kept", "audit"] * 2


async def test_statement_of_a_rollback_listener_is_rolled_back(
    lite: Database, sqlite_judge: SqliteJudge
) -> None:
    engine = (await lite.engine()).sync_engine

    def look(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO note (text) VALUES ('lost')")

    event.listen(engine, "rollback", look)
    with pytest.raises(Boom) as caught:
        async with transactional():
            await write(lite, "lost")
            raise Boom
    assert not hasattr(caught.value, "__notes__")
    assert await sqlite_judge.texts() == []
