"""A service whose handlers don't answer: each waits with something written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
from fastapi import FastAPI
from sqlalchemy import text

from tests.notes import write
from txkit import Database, after_completion, db_session, transactional

db = Database(os.environ["DATABASE_URL"], connect_args={"ssl": False})


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with db:
        yield


app = FastAPI(lifespan=lifespan)


def tell(name: str) -> None:
    after_completion(lambda outcome: click.echo(f"{name}: {outcome}"))


@app.post("/between")
@transactional
async def between() -> None:
    """Wait between statements."""
    await write(db, "between")
    tell("between")
    await asyncio.Event().wait()


@app.post("/statement")
@transactional
async def statement() -> None:
    """Wait in a statement."""
    await write(db, "statement")
    tell("statement")
    await (await db_session(db)).execute(text("SELECT pg_sleep(60)"))


@app.post("/commit")
@transactional
async def commit() -> None:
    """Wait in COMMIT, where a deferred trigger waits for a lock."""
    await write(db, "commit")
    tell("commit")
