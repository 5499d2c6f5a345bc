"""Streams behind FastAPI: an export of all rows in constant memory, and events as they come.

The export is a decorated async generator: one transaction and one connection, from its
first row to its last. The events wait most of the time, and a connection that waits with
them is one that nobody else has: there the decorator is on what each look asks, and the
generator itself has none.

Serve it with ``uvicorn --factory samples.streaming:create_app``; DATABASE_URL says where.
"""

# pyright: reportUnusedFunction=false
from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from txkit import Database, after_commit, db_session, transactional

metadata = MetaData()
note = Table(
    "streamed_note",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", String(200), nullable=False),
)

ROWS_AT_ONCE = 1000
LOOK_EVERY_S = 1.0


class Notes:
    """The services: what they do with a transaction is their decorators' business."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._bell = asyncio.Condition()

    @transactional
    async def add(self, text: str) -> int:
        """Add a note, and ring for who waits once it is committed."""
        session = await db_session(self.database)
        number: int = (
            await session.execute(insert(note).values(text=text).returning(note.c.id))
        ).scalar_one()
        after_commit(self._ring)
        return number

    @transactional(read_only=True)
    async def as_csv(self) -> AsyncIterator[str]:
        """Give all notes as CSV, some rows at a time.

        ``stream`` with ``yield_per`` is a cursor on the server: no more rows are here than that.
        """
        session = await db_session(self.database)
        rows = await session.stream(
            select(note.c.id, note.c.text).order_by(note.c.id),
            execution_options={"yield_per": ROWS_AT_ONCE},
        )
        async for some in rows.partitions():
            lines = io.StringIO()
            csv.writer(lines).writerows(some)
            yield lines.getvalue()

    @transactional(read_only=True)
    async def after(self, number: int) -> list[tuple[int, str]]:
        """Give the notes behind a number: a transaction of one statement."""
        session = await db_session(self.database)
        query = select(note.c.id, note.c.text).where(note.c.id > number).order_by(note.c.id)
        found = await session.execute(query.limit(ROWS_AT_ONCE))
        return [(row.id, row.text) for row in found]

    async def events(self, number: int) -> AsyncIterator[str]:
        """Give each note as a server-sent event. No decorator: it holds nothing while it waits."""
        while True:
            found = await self.after(number)
            for number, text in found:  # noqa: PLR1704 - the last one is where to go on
                yield f"id: {number}\ndata: {json.dumps(text)}\n\n"
            if not found:
                await self._wait()

    async def _ring(self) -> None:
        async with self._bell:
            self._bell.notify_all()

    async def _wait(self) -> None:
        """Wait for the bell. It makes events prompt; that they come is due to the next look."""
        async with self._bell:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), LOOK_EVERY_S)


def create_app(url: str | None = None) -> FastAPI:
    """Make the application for the database at a URL, or at DATABASE_URL."""
    database = Database(url or os.environ.get("DATABASE_URL", "sqlite:///streaming.db"))
    notes = Notes(database)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with database:
            async with (await database.engine()).begin() as connection:
                await connection.run_sync(metadata.create_all)
            yield

    app = FastAPI(title="txkit streams", lifespan=lifespan)

    @app.post("/notes", status_code=201)
    async def post_note(body: dict[str, str]) -> dict[str, Any]:
        return {"id": await notes.add(body["text"])}

    @app.get("/notes.csv")
    async def get_notes() -> StreamingResponse:
        return StreamingResponse(notes.as_csv(), media_type="text/csv")

    @app.get("/notes/events")
    async def get_events(request: Request, after: int = 0) -> StreamingResponse:
        last = int(request.headers.get("last-event-id", after))
        return StreamingResponse(notes.events(last), media_type="text/event-stream")

    return app
