"""Commit and close by hand, to give the connection back long before the end."""

from __future__ import annotations

from samples.usage.database import connection, insert_text, run, show
from txkit import close_db_session, commit_db_session, db_session, transactional


@transactional
async def handler() -> None:
    """Use three transactions, one after the other."""
    await insert_text("1: committed on the session")
    session = await db_session(connection)
    await session.commit()
    await show("after session.commit()")

    # The session is still the context's: its next statement begins a new transaction.
    await insert_text("2: committed by the function")
    await commit_db_session(connection)
    # Closing is for long work without the database; the pool has the connection meanwhile.
    await close_db_session(connection)
    await show("after commit and close")

    # Another session, another transaction, shared by both inserts; the return commits it.
    await insert_text("3: left to the boundary")
    await insert_text("4: left to the boundary")
    await show("before the return")


async def main() -> None:
    await handler()
    await show("after the return")


if __name__ == "__main__":
    run(main)
