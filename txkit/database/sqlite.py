"""Make SQLite's transactions real.

The driver's defaults begin late and commit early: a released savepoint
survives an outer rollback, DDL is not rolled back, lost updates succeed. So
the driver's own transaction control is switched off, and SQLAlchemy's begin
sends ``BEGIN IMMEDIATE``: one file has one writer, and who waits for it waits
at the start (up to the driver's ``timeout``, 5 s), not in the middle.

A read-only transaction is a plain ``BEGIN``, which waits for nobody, with
``PRAGMA query_only`` until its end. Every transaction is SERIALIZABLE.

Follows SQLAlchemy's recipe for serializable SQLite, with WAL and foreign keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from sqlite3 import OperationalError
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent  # type: ignore[import-untyped]
from sqlalchemy import event
from sqlalchemy.exc import ResourceClosedError

from txkit.database import url as urls
from txkit.database.gone import TransactionGoneError
from txkit.database.opening import open_to_the_end
from txkit.database.statements import is_read_text, is_savepoint_text

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine, ExceptionContext

READ_ONLY = "txkit_read_only"
"""The execution option of a read-only transaction, and the mark of a connection in one."""

AT_WORK = "txkit_at_work"
"""The mark of a connection that a statement is on its way on."""

_HARM = "txkit_harm"
_ENDED_BY = "txkit_ended_by"
"""The greenlet that ends the transaction, or ended it: its listeners may still send something."""


def make_transactional(engine: Engine) -> None:
    """Install the listeners; once for an engine, however often it is called."""
    if not event.contains(engine, "connect", _on_connect):
        event.listen(engine, "do_connect", open_to_the_end)
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        event.listen(engine, "before_cursor_execute", _on_statement)
        event.listen(engine, "after_cursor_execute", _on_answer)
        event.listen(engine, "handle_error", _on_error)
        event.listen(engine, "commit", _on_commit)
        event.listen(engine, "rollback", _on_end)


def is_memory(engine: Engine) -> bool:
    """Whether the database lives in memory, on one connection."""
    return urls.is_memory(engine.url)


def interrupt(connection: Connection) -> None:
    """Break off what runs or waits in the driver's thread, and let it roll back next.

    A task's cancellation doesn't reach the thread. And a connection that is closed while
    somebody holds a cursor of it keeps its lock until that goes. A statement of another
    task that comes before it is closed finds a transaction that nobody will commit.
    """
    if connection.dialect.name == urls.SQLITE:
        driver: Any = connection.connection.driver_connection
        for step in (driver.interrupt(), driver.rollback(), driver.execute("BEGIN")):
            with contextlib.suppress(StopIteration, ValueError):  # it is done; or closed
                answer = step.send(None)  # up to where it would wait for the thread
                answer.add_done_callback(_read)
            step.close()


def _read(answer: asyncio.Future[Any]) -> None:
    """Take an error that nobody waits for: the interruption may hit the rollback itself."""
    if not answer.cancelled():
        answer.exception()


def has_rolled_back(connection: Connection) -> bool:
    """Whether an error has ended the transaction by itself, as ``OR ROLLBACK`` and a full disk do."""
    driver: Any = connection.connection.driver_connection
    return connection.dialect.name == urls.SQLITE and not driver.in_transaction


def harm_of_committing(connection: Connection) -> str | None:
    """Give the reason why the open transaction must not just be committed, or None."""
    harm: str | None = connection.info.get(_HARM)
    return harm


def _on_connect(dbapi_connection: Any, _record: object) -> None:
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        # Two processes that switch a new file to WAL at once: one is told "locked" whatever its
        # timeout, and needs nothing but the other one's success.
        with contextlib.suppress(OperationalError):
            cursor.execute("PRAGMA journal_mode = WAL")
    finally:
        cursor.close()


def _on_begin(connection: Connection) -> None:
    connection.info[_ENDED_BY] = None
    connection.info[AT_WORK] = False
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    if options.get(READ_ONLY):
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.info[READ_ONLY] = True
        connection.exec_driver_sql("BEGIN")
        connection.info[_HARM] = None
        return
    # Explicit, so that the driver's own control, which SQLAlchemy puts back with another isolation
    # level, finds a transaction open and leaves it alone.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.info[_HARM] = None


def _on_commit(connection: Connection) -> None:
    """Look whether there is something to commit: a statement may have ended it."""
    level = connection.get_execution_options().get("isolation_level")
    if level != "AUTOCOMMIT" and not connection.invalidated and has_rolled_back(connection):
        _on_end(connection)
        raise TransactionGoneError
    _on_end(connection)


def _on_end(connection: Connection) -> None:
    """Let the next user of the connection write, and no other task up to the next BEGIN."""
    if not connection.invalidated:
        if connection.info.pop(READ_ONLY, None):
            connection.exec_driver_sql("PRAGMA query_only = OFF")
        connection.info[_ENDED_BY] = getcurrent()


def _on_statement(
    connection: Connection,
    _cursor: object,
    statement: str,
    _parameters: object,
    context: Any,
    _executemany: object,
) -> None:
    if connection.info.get(_ENDED_BY) not in {None, getcurrent()}:
        # Another task's, whose cursor was being made meanwhile: it would be durable at once.
        message = "the statement came after the end of its transaction; it was not sent"
        raise ResourceClosedError(message)
    connection.info[AT_WORK] = True
    if context is not None and context.execution_options.get("stream_results"):
        connection.info[_HARM] = "a result is or was being streamed"
    elif not is_read_text(statement) and not is_savepoint_text(statement):
        connection.info[_HARM] = "it ran a statement that may write"


def _on_answer(connection: Connection, *_: object) -> None:
    if not connection.closed and not connection.invalidated:
        # SQLAlchemy's first look at the database has no pool's connection.
        with contextlib.suppress(NotImplementedError):
            connection.info[AT_WORK] = False


def _on_error(context: ExceptionContext) -> None:
    if context.connection is not None:
        _on_answer(context.connection)
