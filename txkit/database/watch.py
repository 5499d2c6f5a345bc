"""Tell whoever uses a connection what became of its statements.

Errors through SQLAlchemy's ``handle_error``, which costs nothing while none
comes. And a savepoint that was rolled back is released, which SQLAlchemy leaves
out: each would stay on the server until the end of the transaction.

Must not know sessions and contexts.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import event

from txkit.database import postgresql
from txkit.database.adapter import make_whole
from txkit.database.sqlite import has_rolled_back, interrupt
from txkit.database.statements import is_savepoint_text, rolls_back_to_text
from txkit.database.url import POSTGRESQL
from txkit.errors import TxkitError, UnexpectedRollbackError

if TYPE_CHECKING:
    from collections import deque

    from sqlalchemy.engine import Connection, Engine, ExceptionContext

_WATCHER = "txkit_watcher"


class Watcher(Protocol):
    """Who wants to know. Held weakly: an idle connection keeps nobody alive."""

    connection: Connection | None

    def failed(self, error: BaseException, *, lost: bool) -> None:
        """A statement failed in the transaction; ``lost``: no savepoint can undo that."""

    def mended(self) -> None:
        """A savepoint was rolled back, below SQLAlchemy."""

    def starvation(self) -> BaseException | None:
        """Give what is raised for a statement that we have cancelled; None: somebody else has."""
        ...

    def refusal(self) -> BaseException:
        """Give what is raised for a statement that can't succeed any more."""
        ...


def watch(engine: Engine) -> None:
    """Install the listeners and the release; once for an engine."""
    event.listen(engine, "handle_error", _on_error)
    # To the front, which insert=True does not do for this event: a listener of the user's that
    # raises ends the row.
    cast("deque[Any]", engine.dialect.dispatch.handle_error.listeners).rotate(1)
    if engine.dialect.name == POSTGRESQL:
        postgresql.make_truthful(engine, _on_driver)
        make_whole(engine)
    _release_always(engine.dialect)


def _release_always(dialect: Any) -> None:
    """Release a savepoint that was rolled back; roll back one that can't be released."""
    roll_back_to, release = dialect.do_rollback_to_savepoint, dialect.do_release_savepoint

    def roll_back_and_release(connection: Connection, name: str) -> None:
        roll_back_to(connection, name)
        release(connection, name)

    def release_or_roll_back(connection: Connection, name: str) -> None:
        try:
            release(connection, name)
        except UnexpectedRollbackError:  # of an error that nobody told us of
            roll_back_and_release(connection, name)
            _on_driver(connection.info, None)
            raise

    dialect.do_rollback_to_savepoint = roll_back_and_release
    dialect.do_release_savepoint = release_or_roll_back


def follow(connection: Connection, watcher: Watcher) -> None:
    """Let ``watcher`` know of this connection's errors, while it is its own."""
    connection.info[_WATCHER] = weakref.ref(watcher)


def watcher_of(info: dict[str, Any]) -> Watcher | None:
    """Give who uses the connection with this ``info`` now, or None."""
    reference = info.get(_WATCHER)
    watcher: Watcher | None = None if reference is None else reference()
    connection = None if watcher is None else watcher.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    return watcher if connection.info is info else None


def follow_undoing(connection: Connection, watcher: Watcher) -> None:
    """Let ``watcher`` know of a ROLLBACK TO past the session, on a connection that is broken."""
    late: set[str] = set()  # SQLite sets savepoints after an error, too: they undo nothing of it

    def told(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        name = statement.rsplit(maxsplit=1)[-1]
        if is_savepoint_text(statement) and not rolls_back_to_text(statement):
            late.add(name)
        elif rolls_back_to_text(statement) and name not in late:
            watcher.mended()

    event.listen(connection, "after_cursor_execute", told)


def _on_driver(info: dict[str, Any], error: BaseException | None) -> None:
    """Note what somebody did on the driver's connection itself."""
    watcher = watcher_of(info)
    if watcher is None:
        return
    if error is None:
        watcher.mended()
    else:
        watcher.failed(error, lost=False)


def _on_error(context: ExceptionContext) -> BaseException | None:
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return None
    try:
        reference = connection.info.get(_WATCHER)
    except NotImplementedError:  # SQLAlchemy's first look at the server has no pool's connection
        return None
    watcher: Watcher | None = None if reference is None else reference()
    if watcher is None or watcher.connection is not connection:
        return None
    error = context.sqlalchemy_exception or context.original_exception
    if context.is_disconnect and not isinstance(error, Exception):
        interrupt(connection)
    if postgresql.was_interrupted(context.original_exception):
        starved = watcher.starvation()
        if starved is not None:
            watcher.failed(starved, lost=False)
            return starved
    if context.is_disconnect or _dooms(connection, context.original_exception):
        is_gone = context.is_disconnect or postgresql.is_broken_off(context.original_exception)
        is_gone = is_gone or rolls_back_to_text(context.statement or "")
        watcher.failed(error, lost=is_gone or has_rolled_back(connection))
    if postgresql.was_aborted(context.original_exception):
        return watcher.refusal()
    return None


def _dooms(connection: Connection, error: BaseException) -> bool:
    """Whether the database gave the error; one of the driver's own leaves all as it was."""
    if isinstance(error, TxkitError):  # COMMIT that was answered by ROLLBACK
        return True
    if postgresql.is_broken_off(error):
        return True
    if not isinstance(error, connection.dialect.loaded_dbapi.Error):
        return postgresql.is_answer(error)  # a cursor's, which the adapter has not translated
    return connection.dialect.name != POSTGRESQL or postgresql.was_answered(error)
