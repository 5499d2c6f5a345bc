"""Every exception of txkit, each with its text and its data.

The tree (programming errors first, run-time errors below them)::

    TxkitError
    |-- NoContextError              a session was asked for outside a context
    |-- ContextClosedError          the context that it was asked of has ended
    |-- ConcurrentSessionUseError   two tasks used one context at the same time
    |-- TransactionRequiredError    mandatory, and no context is there
    |-- TransactionNotAllowedError  never, and a context is there
    |-- IncompatibleTransactionError  a joined call asks for what the boundary is not
    |-- OpenTransactionError        atomic met a transaction that it may not end
    |-- AtomicControlError          an atomic block was to be ended from inside
    |-- UnexpectedRollbackError     what looked like a success was rolled back
    |-- PartialCommitError          one Database committed, another one did not
    |-- CommitOutcomeUnknownError   COMMIT was sent, and no answer came
    |-- TransactionTimeoutError     timeout_s has passed; a TimeoutError too
    |-- AfterCommitError            committed, but hooks failed; an ExceptionGroup too
    `-- PoolStarvationError         waiting could never have succeeded

Each text says what happened, to which function, and what to do; the data are
attributes. The errors of SQLAlchemy and of the driver are never wrapped.
This module must not know sessions, engines or the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    from txkit.database import Database

    Doom: TypeAlias = Literal["failed", "asked", "lost", "unfinished"]

__all__ = [
    "AfterCommitError",
    "AtomicControlError",
    "CommitOutcomeUnknownError",
    "ConcurrentSessionUseError",
    "ContextClosedError",
    "IncompatibleTransactionError",
    "NoContextError",
    "OpenTransactionError",
    "PartialCommitError",
    "PoolStarvationError",
    "TransactionNotAllowedError",
    "TransactionRequiredError",
    "TransactionTimeoutError",
    "TxkitError",
    "UnexpectedRollbackError",
]


class TxkitError(Exception):
    """The root of every error that txkit raises itself."""


class NoContextError(TxkitError):
    """A function that needs the current context was called where there is none.

    The database is untouched: nothing was sent.

    Attributes:
        function: what was called, ``"db_session"`` for example.
    """

    def __init__(self, function: str) -> None:
        self.function = function
        super().__init__(
            f"{function}() was called where no context is open, so there is no transaction that"
            " it could belong to: decorate the entry function that leads here with @transactional"
            " (or @new_context), directly above its 'async def' and below any route or command"
            " decorator (a streamed body and a background task run after their handler: decorate"
            " their function)"
        )


class ContextClosedError(TxkitError):
    """A context was used after its boundary had ended.

    Nothing was sent; what the boundary committed or rolled back stays so.

    Attributes:
        function: what was called.
        opened_by: the boundary that had opened the context.
        ended_s: how many seconds ago that had ended; None: not known.
    """

    def __init__(self, function: str, opened_by: str, ended_s: float | None = None) -> None:
        self.function = function
        self.opened_by = opened_by
        self.ended_s = ended_s
        ended = "has ended" if ended_s is None else f"ended {ended_s:.3g} s ago"
        super().__init__(
            f"{function} belongs to the context of {opened_by!r}, and that {ended}: ask"
            " db_session(db) for a session in the unit that runs now; what runs after its boundary"
            " (a task that was not awaited, a background job) needs @transactional or @new_context"
            " on a function of its own"
        )


class ConcurrentSessionUseError(TxkitError):
    """A task came to a context while another one was using it.

    At a call: nothing was sent, and nothing is marked; the other task's work goes on.
    At the end of a boundary or block: it was rolled back, for the other task was not
    finished and a part of its work would have been missing.

    Attributes:
        function: what was called, or the unit that was to be committed.
        opened_by: the boundary that opened the context.
        task: the name of the task that was refused (of the thread, where it is one).
        user: the name of the task that uses the context.
        runs: what that task runs, its coroutine's qualified name; None: not known.
    """

    def __init__(
        self,
        function: str,
        opened_by: str,
        *,
        task: str,
        user: str,
        runs: str | None = None,
        is_end: bool = False,
        is_thread: bool = False,
    ) -> None:
        self.function = function
        self.opened_by = opened_by
        self.task = task
        self.user = user
        self.runs = runs
        whose = f"task {user!r}" if runs is None else f"task {user!r} ({runs})"
        if is_end:
            text = (
                f"{function!r} in task {task!r} was rolled back: {whose} has used the context of"
                f" {opened_by!r} and is not finished, so that a part of its work would be missing;"
                " await it before the end, or give it a unit of its own with @new_context"
            )
        elif is_thread:
            text = (
                f"{function} was called in thread {task!r}, and the context of {opened_by!r} belongs"
                f" to {whose} and its event loop: do the work there, or give the thread a unit of its"
                " own, with an event loop (asyncio.run) and @new_context"
            )
        else:
            text = (
                f"{function} in task {task!r} came to the context of {opened_by!r} while {whose}"
                " uses it and is not finished: one task at a time uses a context; await that task"
                " first, or give each but one a unit of its own with @new_context (or run_in_new_ctx)"
            )
        super().__init__(text)


class TransactionRequiredError(TxkitError):
    """What needs a transaction was called where none can be.

    A function with ``propagation="mandatory"`` without a context, or
    ``set_rollback_only()`` in autocommit. Its body was not entered, nothing was
    sent, and the caller's context is not marked.

    Attributes:
        function: the decorated function, or ``"set_rollback_only"``.
    """

    def __init__(self, function: str, *, in_autocommit: bool = False) -> None:
        self.function = function
        if in_autocommit:
            text = (
                f"{function}() was called in autocommit, where each statement is durable at once and"
                " nothing can be rolled back: raise an exception, or open a transaction with"
                " @transactional"
            )
        else:
            text = (
                f"{function!r} has propagation='mandatory' and was called where no transaction can"
                " be joined: call it from a function that is decorated with @transactional, or give"
                " it propagation='required'"
            )
        super().__init__(text)


class TransactionNotAllowedError(TxkitError):
    """A function with ``propagation="never"`` was called inside a context.

    Its body was not entered, nothing was sent, and the caller's context is not
    marked rollback-only.

    Attributes:
        function: the decorated function.
        opened_by: the boundary that had opened the context.
    """

    def __init__(self, function: str, opened_by: str) -> None:
        self.function = function
        self.opened_by = opened_by
        super().__init__(
            f"{function!r} has propagation='never' and was called in the context of {opened_by!r}:"
            " call it outside of any transaction, or give it propagation='not_supported', which"
            " sets the context aside for as long as it runs"
        )


class IncompatibleTransactionError(TxkitError):
    """A call asks for a transaction that the one it would join is not.

    Its body was not entered (or, for a Database that came into use inside it, no
    session was given), nothing of it was sent, and the context is not marked. Raised for
    options that ``session.connection()`` was given, too: they would have undone what
    makes the unit a transaction, which can only be rolled back then.

    Attributes:
        function: the call that would have joined.
        boundary: the function that opened the context.
        option: ``"isolation"``, ``"read_only"`` or ``"deferrable"``.
        asked: the value that the call asks for.
        found: the value that the transaction has.
    """

    def __init__(
        self, function: str, boundary: str, option: str, *, asked: object, found: object
    ) -> None:
        self.function = function
        self.boundary = boundary
        self.option = option
        self.asked = asked
        self.found = found
        super().__init__(
            f"{function!r} can't join the transaction of {boundary!r} ({option}={found}): it asks"
            f" for {option}={asked}, and a transaction can't be changed once it is open; give both"
            " the same value, leave the option of the inner one out, or make it a unit of its own"
            " with @new_context"
        )


class OpenTransactionError(TxkitError, InvalidRequestError):
    """An ``atomic`` block met an open transaction that it may not end by itself.

    Nothing was sent but the question that told so; the transaction is still
    open. It is an ``sqlalchemy.exc.InvalidRequestError`` too, since that is
    what ``session.begin()`` raises in the same place.

    Attributes:
        function: the decorated function or block.
        database: the Database whose transaction is open.
        reason: what committing it first would have lost or revealed.
    """

    def __init__(self, function: str, database: Database, reason: str) -> None:
        self.function = function
        self.database = database
        self.reason = reason
        super().__init__(
            f"atomic {function!r} met an open transaction on {database!r} ({reason}): say what is"
            " to become of it with current_transaction='commit' (commit it first), 'rollback' (roll"
            " it back first), 'append' (use it and commit it with the block) or 'savepoint' (be a"
            " part of it)"
        )


class AtomicControlError(TxkitError):
    """Something inside an atomic block tried to end the block's transaction.

    Or a ``before_commit`` hook did, while the transaction is about to be committed.
    Nothing was sent; the block is as it was and may go on.

    Attributes:
        operation: what was tried, ``"session.commit()"`` for example.
        function: the atomic function or block that owns the transaction, or the unit
            that the hook is about to commit.
    """

    def __init__(self, operation: str, function: str, *, in_hook: bool = False) -> None:
        self.operation = operation
        self.function = function
        if in_hook:
            text = (
                f"{operation} was refused in a before_commit hook of {function!r}, whose transaction"
                " is about to be committed: raise, or call set_rollback_only(), to undo it; use"
                " session.begin_nested() for a part, or after_commit for what is to follow"
            )
        else:
            text = (
                f"{operation} was refused inside the atomic block {function!r}: what is declared"
                " atomic commits or rolls back as a whole when it ends; leave it by an exception or"
                " call set_rollback_only() to undo it, use session.begin_nested() for a part of it,"
                " or move the call behind the block"
            )
        super().__init__(text)


class UnexpectedRollbackError(TxkitError):
    """A unit that was to commit was rolled back, or may only be rolled back.

    At the end of a boundary or block: rolled back, nothing of it is in the
    database. At a statement or a commit by hand: nothing was sent, the
    transaction is still open and can only be rolled back. The first failure is
    its ``__cause__``. After Spring's exception of the same name.

    Attributes:
        function: the boundary or block that could not commit.
        culprit: the joined function that doomed it, or what else did.
        reason: what the culprit said, or its exception in words.
        how: ``"failed"``: an exception of its; ``"asked"``: it called
            ``set_rollback_only()``; ``"lost"``: the connection went, or the database
            itself ended the whole transaction; ``"unfinished"``: a block of a generator's
            or task's was left, and nobody could end it.
        ended: whether it was rolled back; False: that is still to be done.
    """

    def __init__(
        self, function: str, culprit: str, reason: str, *, how: Doom = "failed", ended: bool
    ) -> None:
        self.function = function
        self.culprit = culprit
        self.reason = reason
        self.how: Doom = how
        self.ended = ended
        outcome = "was rolled back" if ended else "can only be rolled back"
        super().__init__(f"{function!r} {outcome}: {self._why()}")

    def _why(self) -> str:
        if self.how == "lost":
            return (
                f"{self.culprit!r} failed ({self.reason}), and the whole transaction went with that,"
                " which no savepoint can undo; run it again, or give what may fail or be cancelled"
                " alone a transaction of its own, with propagation='requires_new'"
            )
        if self.how == "unfinished":
            return (
                f"{self.culprit!r} is a part of it and has no end ({self.reason}): close a decorated"
                " generator that is left early, 'async with contextlib.aclosing(...) as items:', and"
                " await every task before the end"
            )
        if self.culprit == self.function and self.how == "asked":
            return f"it asked for that itself ({self.reason}); roll back by hand to begin anew"
        if self.how == "asked":
            return (
                f"{self.culprit!r} asked for that ({self.reason}); if it is to undo its own work"
                " alone, make it @transactional(propagation='nested')"
            )
        if self.culprit == self.function:
            return (
                f"a statement in it failed ({self.reason}), and the error was caught in it; let it"
                " leave, or roll back by hand, or, if that statement may fail, put it alone into"
                " 'async with session.begin_nested():', inside of the try"
            )
        return (
            f"{self.culprit!r} failed in its transaction ({self.reason}), and a part of a"
            " transaction can't fail alone; let the exception leave, or roll back by hand, or, if it"
            " may fail by itself, make it @transactional(propagation='nested'), or @new_context"
            " where its work is to stay, and catch what it raises around the call of it"
        )


class PartialCommitError(TxkitError):
    """Of several Databases some were committed before one refused.

    What ``committed`` names is durable; ``failed`` and ``rolled_back`` hold
    nothing of the unit. The refusal is the ``__cause__``.

    Attributes:
        function: the boundary or block that was ending.
        committed: Databases that had been committed, in order.
        failed: the Database whose commit failed.
        rolled_back: Databases that were rolled back because of it.
    """

    def __init__(
        self,
        function: str,
        committed: Sequence[Database],
        failed: Database,
        rolled_back: Sequence[Database],
    ) -> None:
        self.function = function
        self.committed = tuple(committed)
        self.failed = failed
        self.rolled_back = tuple(rolled_back)
        super().__init__(
            f"{function!r} was committed only in part: {_names(self.committed)} committed, then"
            f" {failed.name!r} failed, and {_names(self.rolled_back)} rolled back; repair by hand,"
            " and let the write that may be repeated come last"
        )


class CommitOutcomeUnknownError(TxkitError):
    """COMMIT was sent, and its answer never came.

    The work is committed as a whole or rolled back as a whole, and nobody here can
    tell which. The connection is discarded. What broke it is the ``__cause__``. Also
    raised where a COMMIT or ROLLBACK that was sent as text has ended the transaction.

    Attributes:
        function: the unit whose outcome it is.
        database: the Database that it is about.
        reason: why nobody can tell.
    """

    def __init__(
        self,
        function: str,
        database: Database,
        reason: str = "COMMIT was sent and not answered",
    ) -> None:
        self.function = function
        self.database = database
        self.reason = reason
        super().__init__(
            f"{function!r} may be committed or rolled back on {database!r} ({reason}): look in the"
            " database before you repeat it, for a row that only it could have written, for example"
        )


class TransactionTimeoutError(TxkitError, TimeoutError):
    """A unit took longer than its ``timeout_s``; what was open is rolled back.

    Raised by a boundary: nothing of its transaction is in the database (what was
    committed earlier, by hand or by an atomic block, stays). Raised by a joined
    call: what it joined may only be rolled back.

    Attributes:
        function: the decorated function or block.
        timeout_s: its limit, in seconds.
    """

    def __init__(self, function: str, timeout_s: float) -> None:
        self.function = function
        self.timeout_s = timeout_s
        super().__init__(
            f"{function!r} took longer than its timeout_s={timeout_s:g}, and what was not committed"
            " by then was rolled back: raise the limit, or do less in one transaction"
        )


class AfterCommitError(TxkitError, ExceptionGroup[Exception]):
    """The work *is* committed; hooks that ran after the commit failed.

    Everything that was to be committed is durable, and every hook was run. Don't
    repeat the unit.

    Attributes:
        function: the unit that was committed.
        result: what its function returned; None for a block or a commit by hand.
        exceptions: what the hooks raised.
    """

    function: str
    result: Any

    def __new__(cls, function: str, exceptions: Sequence[Exception]) -> Self:
        """Make the group."""
        message = (
            f"{function!r} is committed, but hooks that ran after the commit failed: don't run it"
            " again; repair what they should have done, or register them with robust=True if they"
            " may fail"
        )
        self = super().__new__(cls, message, exceptions)
        self.function = function
        self.result = None
        return self

    def __init__(self, function: str, exceptions: Sequence[Exception]) -> None:
        super().__init__(function, exceptions)

    def derive(self, excs: Sequence[Any], /) -> Any:
        """Make a part of the group, for ``except*``."""
        part = AfterCommitError(self.function, excs)
        part.result = self.result
        return part


class PoolStarvationError(TxkitError):
    """A unit needed what callers hold that can't end before it: waiting could not succeed.

    A connection of a full pool, or SQLite's write lock: nothing was sent. A lock in the
    database: the statement that waited for it was cancelled, and the unit can only be
    rolled back. The callers' transactions are as they were.

    Attributes:
        function: the unit that was refused.
        holders: the callers that hold what it needed, by name.
        database: the Database that all of them use.
    """

    def __init__(
        self,
        function: str,
        holders: Sequence[str],
        database: Database,
        *,
        connections: int = 0,
        by_rows: bool = False,
    ) -> None:
        self.function = function
        self.holders = tuple(holders)
        self.database = database
        names = ", ".join(repr(holder) for holder in self.holders)
        if connections:
            many = "the one connection" if connections == 1 else f"all {connections} connections"
            text = (
                f"{function!r} needs a connection to {database!r}, but {many} of its pool can't come"
                f" back before somebody gets another one: held by {names}, suspended until then;"
                " give the Database a larger pool_size= or max_overflow=, join with @transactional"
                " in the place of a new context, or end the caller's transaction before the call,"
                " with commit_db_session(db)"
            )
        elif by_rows:
            text = (
                f"{function!r} waited on {database!r} for a lock that its own suspended caller"
                f" {names} holds until it ends, and was broken off: let it keep off the rows that"
                f" {names} has changed or locked, join with @transactional, or commit {names} by"
                " hand first"
            )
        else:
            text = (
                f"{function!r} needs the write lock of {database!r}, which its own suspended caller"
                f" {names} holds until it ends (SQLite has one writer): run it before or after"
                f" {names}, join with @transactional, or commit {names} by hand first"
            )
        super().__init__(text)


def _names(databases: Sequence[Database]) -> str:
    return ", ".join(repr(database.name) for database in databases) or "nothing"
