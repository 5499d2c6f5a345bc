"""The little service that most tests use: it writes a note through the context's session."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from txkit import Database, db_session

metadata = MetaData()
note = Table(
    "note",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", String(200), nullable=False),
)


class Boom(Exception):
    """What the tests raise in a body."""


async def write(db: Database, text: str) -> None:
    session = await db_session(db)
    await session.execute(insert(note).values(text=text))


async def count(db: Database) -> int:
    session = await db_session(db)
    return len((await session.execute(select(note.c.id))).all())
