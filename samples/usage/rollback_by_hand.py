"""Take work back without an exception."""

from __future__ import annotations

from samples.usage.database import connection, insert_text, run, show
from txkit import db_session, rollback_db_session, set_rollback_only, transactional


@transactional
async def handler() -> None:
    """Roll back twice, then write something that stays."""
    await insert_text("undone by the function")
    await rollback_db_session(connection)

    await insert_text("undone on the session")
    session = await db_session(connection)
    await session.rollback()

    # The boundary is still open: the next statement begins a new transaction.
    await insert_text("kept")


@transactional
async def rehearsal() -> str:
    """Do the work for its answer only: the boundary rolls back and returns normally."""
    await insert_text("rehearsed")
    set_rollback_only("a rehearsal")
    return "it would work"


async def main() -> None:
    await handler()
    await show("after two rollbacks by hand")
    print("rehearsal():", await rehearsal())
    await show("after the rehearsal")


if __name__ == "__main__":
    run(main)
