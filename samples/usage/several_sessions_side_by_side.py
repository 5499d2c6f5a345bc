"""Several transactions at the same time, in contexts of their own or outside any."""

from __future__ import annotations

import asyncio

from samples.usage.database import connection, insert_text, run, show
from txkit import (
    close_db_session,
    commit_db_session,
    new_context,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    run_in_new_ctx,
    transactional,
)


@new_context
async def in_a_context_of_its_own() -> None:
    """Open a new context whoever calls; its end commits."""
    await insert_text("2: decorated with new_context")


async def by_hand(text: str) -> None:
    """End a context's work early; without these two lines its boundary would do it."""
    await insert_text(text)
    await commit_db_session(connection)
    await close_db_session(connection)


async def outside_any_context() -> None:
    """Use a session that no context knows; the block commits it."""
    async with new_non_ctx_atomic_session(connection) as session:
        await insert_text("4: without a context", session)


async def outside_any_context_by_hand() -> None:
    """Use a session that no context knows, and commit it here."""
    async with new_non_ctx_session(connection) as session:
        await insert_text("5: without a context, by hand", session)
        await session.commit()


@transactional
async def handler() -> None:
    """Write through the context's session, then run four more units beside each other."""
    # Committed by hand before the others start: SQLite has one writer, so while this
    # transaction is open the others, which this function waits for, could never get their turn.
    # txkit refuses them at once there (PoolStarvationError). PostgreSQL would not mind.
    await insert_text("1: the context's session")
    await commit_db_session(connection)
    await asyncio.gather(
        in_a_context_of_its_own(),
        run_in_new_ctx(by_hand, "3: run_in_new_ctx"),
        outside_any_context(),
        outside_any_context_by_hand(),
    )
    await show("after the gather")
    await insert_text("6: the context's session again")


async def main() -> None:
    await handler()
    await show("after the return")


if __name__ == "__main__":
    run(main)
