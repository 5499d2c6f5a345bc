"""What a guarded session may do now: the one place that refuses before anything is sent.

Asked before every statement and every attempt to end the transaction.
Must not change anything but what it was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InvalidRequestError

from txkit._core.context import State
from txkit._core.control import Control
from txkit._core.finish import cancellations
from txkit._core.routing import live_bind, option_conflict, refuse_starvation
from txkit._core.starvation import look_out
from txkit._core.users import use
from txkit.database.statements import is_read, rolls_back_to
from txkit.errors import AtomicControlError, TransactionRequiredError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.orm import SessionTransaction

    from txkit._core.participant import Participant


def route(one: Participant, bind: Engine | Connection, statement: Any) -> Engine | Connection:
    """Say where the next statement goes, or refuse it.

    Raises:
        UnexpectedRollbackError: the transaction can only be rolled back.
        ContextClosedError: the context has ended.
        PoolStarvationError: a suspended caller holds what it needs.
    """
    context = one.context
    if context is not None:
        if one.control is Control.USER or context.state is State.CLOSED:
            context.check_open("a session")
        refuse_overlap(one, "a session")
        one.last_used = context.tick()
    if one.control is Control.CLOSED:
        message = "this session was closed: ask db_session() for the one that belongs here now"
        raise InvalidRequestError(message)
    if one.broken is not None and rolls_back_to(statement):
        one.mended()  # if the server refuses, it is broken by that
    refuse_doomed(one)
    if one.connection is None:
        one.engine = one.database.loop_engine()
        look_out(one.engine)
        one.only_read = True
        one.cancellations = cancellations()
    reads = statement is not None and is_read(statement)
    if one.only_read and statement is not None:
        one.only_read = reads
    if one.outer is not None:
        refuse_starvation(one, reads=reads)
    return live_bind(one, bind)


def refuse_overlap(one: Participant, what: str) -> None:
    """Refuse a task that comes while another one uses the context.

    Raises:
        ConcurrentSessionUseError: nothing was sent.
    """
    if one.context is None:
        return
    if one.control is not Control.CLOSED:
        use(one.context, what)
    elif one.context.state is State.CLOSED:
        one.context.check_open(what)


def refuse_doomed(one: Participant) -> None:
    """Refuse what would be sent in a unit that may only be rolled back.

    Raises:
        UnexpectedRollbackError: nothing was sent.
    """
    context = one.context
    if one.control is not Control.USER or not one.is_suspect:
        return
    mark = None if context is None else context.mark_on(one)
    if mark is None or (mark.error is None and not mark.final):  # who asked may go on, if he can
        mark = one.broken_mark()
    if mark is not None:
        raise mark.refusal(one.name, ended=False) from mark.error


def authorize(one: Participant, operation: str, *, ends_by: str) -> None:
    """Let the user end the transaction by hand, or refuse.

    Raises:
        AtomicControlError: an atomic block owns the transaction.
        UnexpectedRollbackError: a commit of what can only be rolled back.
        TransactionTimeoutError: a commit of what is over its time.
    """
    if one.control is not Control.USER:
        if one.context is not None and one.control is Control.CLOSED and ends_by != "rollback":
            one.context.check_open(operation)
        return
    refuse_overlap(one, operation)
    _refuse_owned(one, operation)
    if ends_by == "commit":
        refuse_broken(one)
        if one.context is not None:
            one.context.check_limit()


def refuse_foreign_commit(one: Participant) -> None:
    """Refuse a commit of the connection, behind the session that is at work on it.

    Raises:
        AtomicControlError: an atomic block owns the transaction; nothing was sent.
        InvalidRequestError: nothing was sent.
    """
    if one.context is not None and one.context.autocommit:
        return
    operation = "connection.commit()"
    _refuse_owned(one, operation)
    if one.context is not None:
        message = (
            f"{operation} would end the transaction of {one.name!r} behind its session: use"
            " commit_db_session(db), or await session.commit()"
        )
        raise InvalidRequestError(message)


def _refuse_owned(one: Participant, operation: str) -> None:
    """Let nobody end what an atomic block, or a session that is atomic itself, owns."""
    if one.sealed_by is not None:
        raise AtomicControlError(operation, one.sealed_by)
    if one.context is not None:
        one.context.refuse_control(one.database, operation)


def refuse_broken(one: Participant) -> None:
    """Refuse to commit what can only be rolled back.

    Raises:
        UnexpectedRollbackError: nothing was sent.
    """
    mark = None if one.context is None else one.context.mark_on(one)
    mark = mark or one.broken_mark()
    if mark is not None:
        raise mark.refusal(one.name, ended=False) from mark.error


def refuse_begin(one: Participant, *, nested: bool) -> None:
    """Refuse a transaction where none can be, and a savepoint in one that is doomed.

    Raises:
        TransactionRequiredError: the context is in autocommit; nothing was sent.
        UnexpectedRollbackError: nothing was sent.
    """
    if one.context is not None and one.context.autocommit:
        function = "session.begin_nested" if nested else "session.begin"
        raise TransactionRequiredError(function, in_autocommit=True)
    if nested:
        refuse_overlap(one, "session.begin_nested()")
        refuse_doomed(one)


def refuse_connection(one: Participant, connection: Connection) -> None:
    """Refuse a connection that a transaction was begun on, and that is not what was declared.

    Whoever swallows the error: the transaction can only be rolled back.

    Raises:
        IncompatibleTransactionError: it has other options.
        InvalidRequestError: it is the session's second one.
    """
    wrong = _wrong_with(one, connection)
    if wrong is not None:
        one.failed(wrong, lost=True)
        raise wrong


def _wrong_with(one: Participant, connection: Connection) -> Exception | None:
    if one.context is None and one.sealed_by is None:
        return None
    if connection is not one.connection:
        message = (
            "a second connection for one session would be a second transaction, which can be"
            " committed without the first: don't give bind_arguments another engine"
        )
        return InvalidRequestError(message)
    given = connection.get_execution_options()
    if not one.options and "isolation_level" not in given:
        return None
    expected = dict(one.options)
    if str(given.get("isolation_level")).upper() == "AUTOCOMMIT":
        expected.setdefault("isolation_level", "that of a transaction")
    return option_conflict(one, "session.connection", given, expected)


def refuse_release(one: Participant, savepoint: SessionTransaction) -> None:
    """Refuse to release a savepoint that may only be rolled back, or that a block holds.

    Which one is released is not told; one that holds a marked one is doomed as well.
    """
    mark = next((point.mark for point in one.points.values() if point.mark), None)
    mark = mark or one.broken_mark()
    if mark is not None:
        where = f"a savepoint in {one.name}"
        raise mark.refusal(where, ended=False) from mark.error
    if one.is_held(savepoint) and one.context is not None:
        one.context.refuse_control(one.database, "the release of its savepoint")
