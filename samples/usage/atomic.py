"""A function of the context's session is reused where its work has to be durable at once."""

from __future__ import annotations

from samples.usage.database import connection, insert_text, run, show
from txkit import atomic, atomic_db_session, transactional


@atomic(connection)
async def write_at_once(text: str) -> None:
    """Have a transaction of its own on the context's session."""
    await insert_text(text)


@transactional
async def handler() -> None:
    """Commit in between, and go on."""
    async with atomic_db_session(connection):  # the block commits, or rolls back as a whole
        await insert_text("1: in the block")
    await show("after the block")

    await write_at_once("2: in the atomic function")  # the same as a decorator
    await show("after the atomic function")

    await insert_text("3: in the rest")  # another transaction, which the boundary commits
    await show("before the return")


async def main() -> None:
    await handler()
    await show("after the return")


if __name__ == "__main__":
    run(main)
