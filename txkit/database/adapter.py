"""What SQLAlchemy's adapter of asyncpg does with a connection's end, made whole.

A connection whose transaction has no end that anybody answered for must not go
back to the pool, one that the server has closed must not come from it, and one
that is given up must not leave its statement running. The adapter and the driver
have a gap at each of these.

Must not know sessions and contexts.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from txkit._core.finish import cancel_later
from txkit.database.postgresql import DRIVER, LOST, was_answered
from txkit.errors import UnexpectedRollbackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

_CANCEL_S = 2.0
"""For a statement to be cancelled: what the driver's request to the server may take."""

_ANSWER_S = 0.5
"""For the statement's own last answer once the request is sent. It is not needed."""

_LETTING_GO: set[asyncio.Task[None]] = set()


def make_whole(engine: Engine) -> None:
    """Mend an engine's dialect; nothing is done for another driver than asyncpg."""
    if engine.dialect.driver == DRIVER:
        event.listen(engine, "checkout", _on_checkout)
        _account_for_ends(engine.dialect)
        _cancel_before_hanging_up(engine.dialect)


def _on_checkout(dbapi_connection: Any, _record: object, _proxy: object) -> None:
    """Give nobody a connection that is known to be closed: the pool opens another one."""
    if dbapi_connection.driver_connection.is_closed():
        message = "the server has closed it"
        raise DisconnectionError(message)


def _account_for_ends(dialect: Any) -> None:
    """Let no COMMIT or ROLLBACK end in silence or leave its transaction open.

    On a connection that is closed the adapter sends no COMMIT, and returns. And whatever became
    of an end, it takes the transaction for ended and sends nothing more: a connection that gave
    no answer, because its driver was busy, would come back from the pool with it. So it is closed.
    """
    commit, roll_back = dialect.do_commit, dialect.do_rollback

    def commit_if_open(connection: Any) -> None:
        was_closed = connection.driver_connection.is_closed()
        _answered(dialect, commit, connection)
        if was_closed and not connection.dbapi_connection.autocommit:
            function, culprit, reason = "COMMIT", LOST, "it was lost before COMMIT was sent"
            raise UnexpectedRollbackError(function, culprit, reason, how="lost", ended=True)

    dialect.do_commit = commit_if_open
    dialect.do_rollback = partial(_answered, dialect, roll_back)


def _cancel_before_hanging_up(dialect: Any) -> None:
    """Let a connection that is given up end its statement at the server, however it came to that.

    SQLAlchemy waits two seconds for an answer that may never come, and a second cancellation (an
    anyio scope's is continuous) breaks off the driver's request to the server.
    """
    terminate = dialect.do_terminate

    def cancel_and_terminate(connection: Any) -> None:
        driver = connection.driver_connection
        if in_greenlet() and not driver.is_closed():
            handled = sys.exception()
            task = asyncio.get_running_loop().create_task(_let_go(driver), name="txkit: hanging up")
            _LETTING_GO.add(task)
            task.add_done_callback(_LETTING_GO.discard)
            try:
                await_only(asyncio.shield(task))
            except asyncio.CancelledError as cancelled:  # raised already, or at the next await
                # SQLAlchemy must come to its end, and forget the connection: our task has it.
                if not isinstance(handled, asyncio.CancelledError):
                    cancel_later(cancelled)
                return
        terminate(connection)

    dialect.do_terminate = cancel_and_terminate


async def _let_go(driver: Any) -> None:
    try:
        requests = set(getattr(driver, "_cancellations", ()))
        if requests:
            await asyncio.wait(requests, timeout=_CANCEL_S)
        with contextlib.suppress(Exception):
            await driver.close(timeout=_ANSWER_S if requests else _CANCEL_S)
    finally:
        driver.terminate()


def _answered(dialect: Any, end: Callable[[Any], None], connection: Any) -> None:
    try:
        end(connection)
    except UnexpectedRollbackError:
        raise
    except Exception as error:
        if not (isinstance(error, dialect.loaded_dbapi.Error) and was_answered(error)):
            dialect.do_terminate(connection.dbapi_connection)
        raise
