"""Make SQLite's transactions real.

The driver's defaults begin late and commit early: a released savepoint
survives an outer rollback, DDL is not rolled back, lost updates succeed. So
the driver's own transaction control is switched off, and SQLAlchemy's begin
sends ``BEGIN IMMEDIATE``: one file has one writer, and who waits for it waits
at the start (up to the driver's ``timeout``, 5 s), not in the middle.

Follows SQLAlchemy's recipe for serializable SQLite, with WAL and foreign keys.
"""

from __future__ import annotations

import contextlib
from sqlite3 import OperationalError
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_WROTE = "txkit_wrote"
_READS = ("SELECT", "PRAGMA", "EXPLAIN", "SAVEPOINT", "RELEASE", "ROLLBACK TO", "BEGIN", "VALUES")


def make_transactional(engine: Engine) -> None:
    """Install the listeners; once for an engine, however often it is called."""
    if not event.contains(engine, "connect", _on_connect):
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        event.listen(engine, "before_cursor_execute", _on_statement)


def wrote(connection: Connection) -> bool:
    """Whether the open transaction ran a statement that may write."""
    return bool(connection.info.get(_WROTE))


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
    dbapi_connection: Any = connection.connection.dbapi_connection
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    if dbapi_connection.isolation_level is not None:
        # SQLAlchemy put the driver's own control back, with another isolation level.
        dbapi_connection.isolation_level = None
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.info[_WROTE] = False


def _on_statement(
    connection: Connection,
    _cursor: object,
    statement: str,
    _parameters: object,
    _context: object,
    _executemany: object,
) -> None:
    if not statement.lstrip(" \t\r\n(").upper().startswith(_READS):
        connection.info[_WROTE] = True
