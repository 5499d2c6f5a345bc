"""What a coroutine asks of the current context: its sessions, and ends by hand.

The functions of context-async-sqlalchemy under their own names, and two that
are about the unit itself. They find the context and hand over to
``_core.boundary``; nothing here sends SQL by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from txkit._core.boundary.byhand import commit_by_hand, rollback_by_hand
from txkit._core.boundary.enlist import give
from txkit._core.boundary.joining import ask_for_rollback
from txkit._core.boundary.own import OwnSession
from txkit._core.permission import authorize
from txkit._core.place import running_context
from txkit._core.users import open_place
from txkit.decorators import new_context
from txkit.decorators.atomics import Atomic
from txkit.policy.callables import is_stream
from txkit.policy.current_transaction import CurrentTransaction, parse_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit._core.context import Context
    from txkit._core.participant import Participant
    from txkit.database import Database

T = TypeVar("T")


async def db_session(database: Database) -> AsyncSession:
    """Give the context's session for ``database``.

    Made at the first call, the same object afterwards, in every coroutine below.
    No connection is taken yet: the first statement takes one and sends BEGIN.
    After ``close_db_session`` the next call makes a new session.

    Sends:
        Nothing; ``before_session`` of the Database may.

    Raises:
        NoContextError: no boundary is open; its text says which decorator is missing.
        ContextClosedError: the boundary has ended.

    Cancellation: nothing has happened, or the session is there.
    """
    context = open_place("db_session").context
    one = context.participants.get(database)
    if one is None or context.asked:
        one = await give(context, database)
    return one.session


async def commit_db_session(database: Database) -> None:
    """Commit the open transaction now, if there is one.

    The session stays; the connection goes back to the pool, and the next statement
    takes one and begins a new transaction.

    Sends:
        Pending ORM changes, then COMMIT.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        AtomicControlError: an atomic block owns the transaction; nothing was sent.
        UnexpectedRollbackError: a joined function failed, so that the transaction can
            only be rolled back; nothing was sent.
        Exception: the flush or the commit was refused, in the driver's words. A refused
            commit is rolled back.

    Cancellation: before COMMIT was sent the transaction is open; from then on it is
    finished first.
    """
    context, one = _participant("commit_db_session", database, ends_by="commit")
    if one is not None and one.in_transaction:
        await commit_by_hand(context, f"commit_db_session() in {context.name}", [one])


async def rollback_db_session(database: Database) -> None:
    """Roll back the open transaction now, if there is one.

    The session stays; the next statement begins a new transaction. A transaction
    that could only be rolled back is mended by it.

    Sends:
        ROLLBACK.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        AtomicControlError: an atomic block owns the transaction; nothing was sent.

    Cancellation: it is rolled back all the same.
    """
    context, one = _participant("rollback_db_session", database, ends_by="rollback")
    context.rolled_back(database, by_hand=True)
    if one is not None:
        name = f"rollback_db_session() in {context.name}"
        await rollback_by_hand(context, name, [one], "asked for", close=False)


async def close_db_session(database: Database) -> None:
    """Close the session now: an open transaction is rolled back.

    The connection goes back to the pool; the next ``db_session`` makes a new session.

    Sends:
        ROLLBACK, if a transaction is open.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
        AtomicControlError: an atomic block owns the transaction; nothing was sent.

    Cancellation: it is closed all the same.
    """
    context, one = _participant("close_db_session", database, ends_by="rollback")
    context.rolled_back(database, by_hand=True)
    if one is not None:
        name = f"close_db_session() in {context.name}"
        await rollback_by_hand(context, name, [one], "closed", close=True)


def atomic_db_session(
    database: Database, current_transaction: str | None = None
) -> AbstractAsyncContextManager[AsyncSession]:
    """Give an atomic block that yields the context's session.

    ``atomic(database, current_transaction=...)``, but for a mode that is left out:
    what is open is committed first, as in context-async-sqlalchemy. Inside another
    atomic block it is a savepoint.

    Raises:
        ValueError: the mode is unknown.
    """
    mode = parse_mode(current_transaction, left_out=CurrentTransaction.COMMIT)
    return Atomic[Any]((database,), mode)


def new_non_ctx_session(database: Database) -> AbstractAsyncContextManager[AsyncSession]:
    """Give a session outside any context, as an ``async with`` block.

    The user commits; what is open at the end is rolled back.
    """
    return OwnSession(database, "new_non_ctx_session()", atomic=False)


def new_non_ctx_atomic_session(database: Database) -> AbstractAsyncContextManager[AsyncSession]:
    """Give a session outside any context, in a transaction that the block commits.

    An exception that leaves the block rolls it back.
    """
    return OwnSession(database, "new_non_ctx_atomic_session()", atomic=True)


async def run_in_new_ctx(
    function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
) -> T:
    """Run a coroutine function in a new context: ``new_context(function)(*args, **kwargs)``.

    Raises:
        TypeError: ``function`` is no coroutine function.
        Exception: what the function raised; rolled back.
    """
    if is_stream(function):
        message = "an async generator is iterated: async for item in new_context(function)(...)"
        raise TypeError(message)
    return await new_context(function)(*args, **kwargs)


def set_rollback_only(reason: str | None = None) -> None:
    """Let the running unit be rolled back at its end. Statements run until then.

    The nearest decorated function or block is the one that asked. A boundary, an
    atomic block or a savepoint rolls back and returns normally; where a joined
    function asked, the unit that it joined raises ``UnexpectedRollbackError``.
    After Spring's ``setRollbackOnly``.

    Args:
        reason: for the log line and the error; None gives a general one.

    Raises:
        NoContextError, ContextClosedError: no boundary is open.
    """
    ask_for_rollback(reason)


def in_transaction(database: Database | None = None) -> bool:
    """Say whether a transaction is open in the current context.

    ORM changes that wait to be flushed count: their transaction has begun, though
    nothing was sent. False without a context.

    Args:
        database: the Database in question; None: any.
    """
    context = running_context()
    return (
        context is not None
        and not context.autocommit
        and any(
            one.in_transaction
            for one in context.participants.values()
            if database is None or one.database is database
        )
    )


def _participant(
    function: str, database: Database, *, ends_by: str
) -> tuple[Context, Participant | None]:
    context = open_place(function).context
    one = context.participants.get(database)
    if one is None:
        context.refuse_control(database, f"{function}()")
    else:
        authorize(one, f"{function}()", ends_by=ends_by)
    return context, one
