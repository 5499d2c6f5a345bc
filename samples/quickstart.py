"""The main job in one page: python -m samples.quickstart.

A service function gets its transaction from ``@transactional``: committed when
it returns, rolled back when an exception leaves it.
"""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, insert

from txkit import Database, db_session, transactional

FOLDER = tempfile.TemporaryDirectory(prefix="txkit-")
FILE = Path(FOLDER.name) / "quickstart.db"
db = Database(f"sqlite:///{FILE}")
metadata = MetaData()
order = Table("orders", metadata, Column("id", Integer, primary_key=True), Column("item", String))


async def add(item: str) -> None:
    """Take part in whatever transaction the caller has."""
    session = await db_session(db)  # the same session for everything inside
    await session.execute(insert(order).values(item=item))


@transactional
async def place_order(*items: str) -> None:
    """Open the transaction with the first statement; commit at the end."""
    for item in items:
        if not item:
            raise ValueError("an order needs items")
        await add(item)


def seen_from_outside() -> list[str]:
    """Read with a second connection: it sees only what is committed."""
    with closing(sqlite3.connect(FILE)) as connection:
        return [item for (item,) in connection.execute("SELECT item FROM orders")]


async def main() -> None:
    async with db:
        async with (await db.engine()).begin() as connection:
            await connection.run_sync(metadata.create_all)
        await place_order("tea", "milk")
        print("committed:  ", seen_from_outside())
        try:
            await place_order("sugar", "")
        except ValueError as error:
            print("rolled back:", seen_from_outside(), f"({error})")


if __name__ == "__main__":
    with FOLDER:
        asyncio.run(main())
