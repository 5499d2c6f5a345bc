"""Options: one snapshot for a report, a database that refuses to write, a limit of time."""

from __future__ import annotations

import asyncio

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from samples.usage.database import connection, example, insert_text, run, show
from txkit import TransactionTimeoutError, db_session, new_context, transactional


async def count() -> int:
    session = await db_session(connection)
    return (await session.scalars(select(func.count()).select_from(example))).one()


@transactional(isolation="REPEATABLE READ", read_only=True)
async def report() -> None:
    """See one state of the database from the first statement to the last."""
    before = await count()
    await new_context(insert_text)("written during the report")
    print(f"the report counts {before}, and again {await count()}")


@transactional(read_only=True)
async def report_that_writes() -> None:
    await insert_text("refused by the database")


@transactional(timeout_s=0.5)
async def reserve() -> None:
    """Give the row up if the payment takes too long."""
    await insert_text("reserved")
    await asyncio.Event().wait()  # a payment that never comes


async def main() -> None:
    await report()
    await show("after the report")
    try:
        await report_that_writes()
    except DBAPIError:
        await show("after the database refused to write")
    try:
        await reserve()
    except TransactionTimeoutError:
        await show("after TransactionTimeoutError left reserve")


if __name__ == "__main__":
    run(main)
