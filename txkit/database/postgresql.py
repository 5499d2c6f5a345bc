"""Make PostgreSQL's COMMIT tell the truth, and let limits ride on its BEGIN.

A transaction in which a statement failed answers COMMIT with the tag ROLLBACK
and no error. asyncpg's ``Transaction.commit()`` does not look at the tag, so
the driver connection is given a class that does: a subclass of its own one, made
once; the driver's class stays as it is. The same place sees BEGIN, which takes
the settings of the transaction along: no round trip of their own.

Must not know sessions and contexts.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
from sqlalchemy import event

from txkit.database.gone import TransactionGoneError
from txkit.errors import UnexpectedRollbackError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.pool import ConnectionPoolEntry

DRIVER = "asyncpg"
LOST = "the connection"
"""The culprit where the connection itself is."""

READ_WRITE = "SET TRANSACTION READ WRITE"
"""What the driver doesn't say itself, for a server whose default is read-only."""

_LONGEST_MS = 2**31 - 1
_CANCELED = {"57014", "55P03"}  # query_canceled, lock_not_available
_RIDING = WeakKeyDictionary[Any, "tuple[ReferenceType[Connection], str]"]()
"""What the next BEGIN of a driver connection takes along, and for whose checkout alone."""

_TOLD = WeakKeyDictionary[Any, "Callable[[BaseException | None], None]"]()
"""Who is told of a driver connection's errors."""

# Neither is sent for a statement that the driver refuses by itself.
_REFUSALS = (asyncpg.InterfaceError, asyncpg.InternalClientError)

# A limit that is tighter already stays: the operator's, or one that the user set.
_LIMITS = """
SELECT set_config(name, '{ms}', true) FROM (VALUES ('statement_timeout'), ('lock_timeout')) t (name)
 WHERE current_setting(name)::interval NOT BETWEEN '1us' AND '{ms}ms'
"""


class _Truthful:
    """What a driver connection tells: its errors, and that a COMMIT was none.

    SQLAlchemy's statements go past these methods, but for BEGIN, COMMIT and ROLLBACK;
    its ``handle_error`` sees them. Here are those of who uses the driver itself.
    """

    __slots__ = ()

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        parent: Any = super()
        if query.startswith("BEGIN") and self in _RIDING:
            checkout, statements = _RIDING.pop(self)
            connection = checkout()
            if connection is not None and not connection.closed:
                query += statements
        elif _ends_well(query) and not (parent.is_closed() or parent.is_in_transaction()):
            raise TransactionGoneError
        try:
            status: str = await parent.execute(query, *args, **options)
        except asyncpg.PostgresError as error:
            if query.startswith("BEGIN"):  # nobody would send a ROLLBACK for what rode on it
                parent.terminate()
            _report_answer(self, error)
            raise
        if status == "ROLLBACK":
            if query.startswith("COMMIT"):
                function, culprit = "COMMIT", "a statement"
                reason = "its error was swallowed, and PostgreSQL answered COMMIT by ROLLBACK"
                raise UnexpectedRollbackError(function, culprit, reason, ended=True)
            if query.startswith("ROLLBACK TO"):
                _report(self, None)
        return status

    async def executemany(self, *args: Any, **options: Any) -> Any:
        parent: Any = super()
        return await _reported(self, parent.executemany(*args, **options))

    async def fetch(self, *args: Any, **options: Any) -> Any:
        parent: Any = super()
        return await _reported(self, parent.fetch(*args, **options))

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        parent: Any = super()
        return await _reported(self, parent.fetchrow(*args, **options))

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        parent: Any = super()
        return await _reported(self, parent.fetchval(*args, **options))


def _ends_well(query: str) -> bool:
    return query.startswith("COMMIT") and not query.startswith("COMMIT PREPARED")


async def _reported(driver: Any, work: Awaitable[Any]) -> Any:
    try:
        return await work
    except asyncpg.PostgresError as error:
        _report_answer(driver, error)
        raise


def _report_answer(driver: Any, error: BaseException) -> None:
    if is_answer(error):
        _report(driver, error)


def _report(driver: Any, error: BaseException | None) -> None:
    told = _TOLD.get(driver)
    if told is not None:
        told(error)


def make_truthful(engine: Engine, told: Callable[[Any, BaseException | None], None]) -> None:
    """Let every connection that the engine opens tell, and look at COMMIT's answer.

    ``told`` is called with the ``info`` of its pool record and an error of the server's,
    or None when a savepoint was rolled back.
    """
    if engine.dialect.driver != DRIVER:
        return

    def on_connect(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        driver = dbapi_connection.driver_connection
        if not isinstance(driver, _Truthful):
            driver.__class__ = _truthful_class(driver.__class__)
        _TOLD[driver] = partial(told, record.info)

    event.listen(engine, "connect", on_connect)


def is_broken_off(error: BaseException) -> bool:
    """Whether the driver finds its connection in a state in which nothing can be sent any more."""
    return isinstance(error, asyncpg.InternalClientError)


def limits(left_s: float) -> str:
    """Give the statement that limits each statement and each wait for a lock."""
    return _LIMITS.format(ms=min(max(1, math.ceil(left_s * 1000)), _LONGEST_MS))


def send_with_begin(connection: Connection, *statements: str) -> None:
    """Send settings of the transaction that begins now together with its BEGIN.

    On another driver than asyncpg they are statements of their own.
    """
    if connection.dialect.driver == DRIVER:
        riding = (ref(connection), ";".join(statements))
        _RIDING[connection.connection.driver_connection] = riding
    else:
        for statement in statements:
            connection.exec_driver_sql(statement)


def was_aborted(error: BaseException) -> bool:
    """Whether a statement was refused for an earlier error, which nobody told us of."""
    return getattr(error, "sqlstate", None) == "25P02"


def was_interrupted(error: BaseException) -> bool:
    """Whether a statement was cancelled by its server, on somebody's request or for a limit."""
    return getattr(error, "sqlstate", None) == "57014"


def is_answer(error: BaseException) -> bool:
    """Whether an error of the driver's is one that the server sent."""
    return isinstance(error, asyncpg.PostgresError) and getattr(error, "severity", None) is not None


def was_answered(error: BaseException) -> bool:
    """Whether it was the server that refused, and not the driver by itself."""
    answer = error.__cause__
    if isinstance(answer, asyncpg.PostgresError):
        return is_answer(answer)
    return answer is None or not isinstance(answer, _REFUSALS)


def was_canceled(error: BaseException) -> bool:
    """Whether the server cancelled a statement, for its limit or on somebody's request."""
    original: Any = getattr(error, "orig", None)
    return getattr(original, "sqlstate", None) in _CANCELED


def was_sent(error: BaseException) -> bool:
    """Whether a COMMIT that failed with a lost connection can have reached the server."""
    original = getattr(error, "orig", None)
    return original is None or not isinstance(original.__cause__, _REFUSALS)


@lru_cache(maxsize=64)
def _truthful_class(cls: Any) -> Any:
    namespace = {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls)(cls.__name__, (_Truthful, cls), namespace)
