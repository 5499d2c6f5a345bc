"""The usual case: the entry function is decorated, everything below shares its session."""

from __future__ import annotations

from sqlalchemy import insert

from samples.usage.database import connection, example, insert_text, run, show
from txkit import db_session, transactional


@transactional
async def handler() -> None:
    """Write twice in one transaction; no commit is written anywhere."""
    # A session, and no connection yet. Whoever asks again gets the same one.
    session = await db_session(connection)
    # The first statement takes a connection and sends BEGIN.
    await session.execute(insert(example).values(text="basic"))
    await insert_text("basic, from a function below")
    await show("before the return")
    # The return sends COMMIT.


async def main() -> None:
    await handler()
    await show("after the return")


if __name__ == "__main__":
    run(main)
