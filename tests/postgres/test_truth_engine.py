"""COMMIT on the engine's own connections, past every session and context, tells the truth too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.boundary.mistakes import (
    MISSING,
    swallowed,
)
from tests.conftest import PostgresJudge
from txkit import (
    Database,
    UnexpectedRollbackError,
)


async def _commit(connection: AsyncConnection) -> None:
    await connection.commit()


async def _begin(connection: AsyncConnection) -> None:
    """``engine.begin()`` and ``connection.begin()`` end in the same call."""
    await connection.get_transaction().commit()  # type: ignore[union-attr]


class TestEnginesOwnConnections:
    """Alembic, ``create_all`` and other work on ``await db.engine()``, past every context."""

    @pytest.mark.parametrize("commit", [_commit, _begin])
    @pytest.mark.parametrize("raw", [False, True])
    async def test_commit_raises(
        self, db: Database, pg: PostgresJudge, raw: bool, commit: Callable
    ) -> None:
        engine = await db.engine()
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO note (text) VALUES ('lost')"))
            with swallowed():
                if raw:
                    driver = (await connection.get_raw_connection()).driver_connection
                    await driver.execute(MISSING)
                else:
                    await connection.execute(text(MISSING))
            with pytest.raises(UnexpectedRollbackError, match="answered COMMIT by ROLLBACK"):
                await commit(connection)
        assert await pg.texts() == []
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO note (text) VALUES ('kept')"))
        assert await pg.texts() == ["kept"]

    async def test_begin_block_raises(self, db: Database, pg: PostgresJudge) -> None:
        with pytest.raises(UnexpectedRollbackError):
            async with (await db.engine()).begin() as connection:
                await connection.execute(text("INSERT INTO note (text) VALUES ('lost')"))
                with swallowed():
                    await connection.run_sync(lambda sync: sync.exec_driver_sql(MISSING))
        assert await pg.texts() == []

    async def test_savepoint_undoes_it(self, db: Database, pg: PostgresJudge) -> None:
        async with (await db.engine()).begin() as connection:
            await connection.execute(text("INSERT INTO note (text) VALUES ('kept')"))
            with swallowed():
                async with connection.begin_nested():
                    await connection.execute(text(MISSING))
        assert await pg.texts() == ["kept"]
