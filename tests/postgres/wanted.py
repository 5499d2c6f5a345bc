"""A row that everybody wants, for the tests of locks between a unit and its caller."""

from __future__ import annotations

from sqlalchemy import update

from tests.notes import note
from txkit import (
    Database,
    db_session,
    new_context,
)

SOON_S = 5
"""What the contract gives it."""


async def change(db: Database, words: str) -> None:
    session = await db_session(db)
    await session.execute(update(note).where(note.c.id == 1000).values(text=words))


async def in_the_same_task(db: Database) -> None:
    await new_context(name="inner")(change)(db, "inner")
