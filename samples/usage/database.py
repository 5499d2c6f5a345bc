"""What the pages of ``samples.usage`` share: a Database, a table, and a second connection.

TXKIT_SAMPLE_URL names the database; without it a SQLite file in a fresh
temporary folder is used. The table is made anew by every run.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from txkit import Database, db_session

_folder = tempfile.TemporaryDirectory(prefix="txkit-")
_default = f"sqlite:///{Path(_folder.name) / 'usage.db'}"
connection = Database(os.environ.get("TXKIT_SAMPLE_URL") or _default)
metadata = MetaData()
example = Table(
    "txkit_usage_example",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", String(100), nullable=False),
)


async def insert_text(text: str, session: AsyncSession | None = None) -> None:
    """Insert one row, through the context's session if none is given."""
    session = session or await db_session(connection)
    await session.execute(insert(example).values(text=text))


async def show(moment: str) -> None:
    """Print the rows that a second connection sees: those that are committed."""
    other = create_async_engine((await connection.engine()).url, poolclass=NullPool)
    async with other.connect() as second:
        texts = await second.scalars(select(example.c.text).order_by(example.c.text))
        print(f"{moment}: {', '.join(texts) or 'nothing'}")


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Make the table, run a page, close the pool."""

    async def page() -> None:
        async with connection:
            async with (await connection.engine()).begin() as setup:
                await setup.run_sync(metadata.drop_all)
                await setup.run_sync(metadata.create_all)
            await main()

    with _folder:
        asyncio.run(page())
