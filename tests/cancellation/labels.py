"""Say what is going on in a Database: connecting, a statement, COMMIT, ROLLBACK, ...

SQLAlchemy's engine tells of statements and of connecting. Of BEGIN, COMMIT and
ROLLBACK tells the driver's own connection: it is the one that knows when COMMIT
is sent.
"""

from __future__ import annotations

from typing import Any

import asyncpg
from sqlalchemy import event

from tests.cancellation.steps import RUNNING, turns
from txkit import Database

_SAVEPOINTS = ("SAVEPOINT", "RELEASE", "ROLLBACK")


class Telling(asyncpg.Connection):
    """asyncpg's connection, as ``connection_class``."""

    __slots__ = ()

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        run = RUNNING.get()
        if run is None:
            return await super().execute(query, *args, **options)
        word = query.split(maxsplit=1)[0].strip(";")
        run.commits += word == "COMMIT"
        with run.doing(word):
            answer = await super().execute(query, *args, **options)
            await turns()  # an answer is there at once: no way to cancel must miss this
            return answer


def label_of(statement: str) -> str:
    first = statement.split(maxsplit=1)[0]
    return "SAVEPOINT" if first in _SAVEPOINTS else "statement"


async def listen(db: Database) -> None:
    """Label what the Database's engine does in this loop."""
    engine = (await db.engine()).sync_engine
    event.listen(engine, "do_connect", lambda *_: _enter("connecting"))
    event.listen(engine, "connect", lambda *_: _leave("connecting"))
    event.listen(engine, "before_cursor_execute", lambda *told: _enter(label_of(told[2])))
    event.listen(engine, "after_cursor_execute", lambda *told: _leave(label_of(told[2])))


def _enter(what: str) -> None:
    run = RUNNING.get()
    if run is not None:
        run.path.append(what)


def _leave(what: str) -> None:
    run = RUNNING.get()
    if run is not None:
        run.leave(what)
