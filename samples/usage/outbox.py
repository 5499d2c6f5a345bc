"""An outbox: the letter is a row of the order's own transaction, so that none is lost.

The hook only makes the delivery prompt. A process that dies between COMMIT and
the hook leaves a row, and the next look at the table finds it.
"""

from __future__ import annotations

import asyncio
import contextlib

from sqlalchemy import Column, Integer, String, Table, delete, insert, select

from samples.usage.database import connection, insert_text, metadata, run, show
from txkit import after_commit, db_session, transactional

outbox = Table(
    "txkit_usage_outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("letter", String(100), nullable=False),
)


@transactional
async def order(text: str, bell: asyncio.Event) -> None:
    """Write the order and its letter; ring for the postman once both are committed."""
    await insert_text(text)
    session = await db_session(connection)
    await session.execute(insert(outbox).values(letter=f"thank you for ordering {text}"))
    after_commit(bell.set)


@transactional
async def deliver_one() -> bool:
    """Deliver the oldest letter; False if there is none.

    SKIP LOCKED lets several postmen work side by side (SQLite has one writer anyway).
    """
    session = await db_session(connection)
    oldest = select(outbox).order_by(outbox.c.id).limit(1).with_for_update(skip_locked=True)
    letter = (await session.execute(oldest)).one_or_none()
    if letter is None:
        return False
    await session.execute(delete(outbox).where(outbox.c.id == letter.id))
    await send_mail(letter.id, letter.letter)
    return True


async def send_mail(number: int, letter: str) -> None:
    """Send it; if that fails, the row stays.

    A postman who dies between here and COMMIT sends it again: by the number the receiver can tell.
    """
    print(f"mail {number}: {letter}")


async def postman(bell: asyncio.Event) -> None:
    """Wait for the bell, for a minute at most, then deliver all that is there.

    One round; a worker makes them for ever.
    """
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(bell.wait(), timeout=60)
    bell.clear()  # before the look, so that no ring is lost
    while await deliver_one():
        pass


async def main() -> None:
    bell = asyncio.Event()
    await order("tea", bell)
    await order("milk", bell)
    await show("after two orders")
    await postman(bell)
    await show("after the postman's round")


if __name__ == "__main__":
    run(main)
