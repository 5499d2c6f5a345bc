"""A command that doesn't end by itself: ``python -m tests.cancellation.command FACE MOMENT``.

It says when its unit has written, when Ctrl-C has reached it, and how the unit ended.
"""

from __future__ import annotations

import asyncio
import os
import sys

import click
from sqlalchemy import text

from tests.notes import write
from txkit import Database, after_completion, db_session, transactional

db = Database(os.environ["DATABASE_URL"], connect_args={"ssl": False})


@transactional
async def work(moment: str) -> None:
    await write(db, "work")
    after_completion(click.echo)
    click.echo("written")
    if moment == "statement":
        await (await db_session(db)).execute(text("SELECT pg_sleep(60)"))
    elif moment == "between":
        await asyncio.Event().wait()
    # else: in COMMIT, where a deferred trigger waits for a lock


async def tell_when_cancelled(task: asyncio.Task[None]) -> None:
    while not task.cancelling():
        await asyncio.sleep(0.01)
    click.echo("interrupted")


async def main(moment: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    telling = asyncio.create_task(tell_when_cancelled(task))
    try:
        await work(moment)
    finally:
        await telling


@click.command()
@click.argument("moment")
def command(moment: str) -> None:
    asyncio.run(main(moment))


if __name__ == "__main__":
    face, where = sys.argv[1:]
    if face == "click":
        command([where])
    else:
        asyncio.run(main(where))
