"""Every exception of txkit, each with its text and its data.

The tree (programming errors first, run-time errors below them)::

    TxkitError
    |-- NoContextError              a session was asked for outside a context
    |-- ContextClosedError          the context that it was asked of has ended
    |-- TransactionRequiredError    mandatory, and no context is there
    |-- OpenTransactionError        atomic met a transaction that it may not end
    |-- AtomicControlError          an atomic block was to be ended from inside
    |-- UnexpectedRollbackError     what looked like a success was rolled back
    |-- PartialCommitError          one Database committed, another one did not
    `-- PoolStarvationError         waiting could never have succeeded

Each text says what happened, to which function, and what to do; the data are
attributes. The errors of SQLAlchemy and of the driver are never wrapped.
This module must not know sessions, engines or the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txkit.database import Database

__all__ = [
    "AtomicControlError",
    "ContextClosedError",
    "NoContextError",
    "OpenTransactionError",
    "PartialCommitError",
    "PoolStarvationError",
    "TransactionRequiredError",
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
            " decorator"
        )


class ContextClosedError(TxkitError):
    """A context was used after its boundary had ended.

    Nothing was sent; what the boundary committed or rolled back stays so.

    Attributes:
        function: what was called.
        opened_by: the boundary that had opened the context.
    """

    def __init__(self, function: str, opened_by: str) -> None:
        self.function = function
        self.opened_by = opened_by
        super().__init__(
            f"{function} belongs to the context of {opened_by!r}, and that has ended: ask"
            " db_session(db) for a session in the unit that runs now; what runs after its boundary"
            " (a task that was not awaited, a background job) needs @transactional or @new_context"
            " on a function of its own"
        )


class TransactionRequiredError(TxkitError):
    """A function with ``propagation="mandatory"`` was called without a context.

    Its body was not entered and nothing was sent.

    Attributes:
        function: the decorated function.
    """

    def __init__(self, function: str) -> None:
        self.function = function
        super().__init__(
            f"{function!r} has propagation='mandatory' and was called where no context is open:"
            " call it from a function that is decorated with @transactional, or give it"
            " propagation='required'"
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

    Nothing was sent; the block is as it was and may go on.

    Attributes:
        operation: what was tried, ``"session.commit()"`` for example.
        function: the atomic function or block that owns the transaction.
    """

    def __init__(self, operation: str, function: str) -> None:
        self.operation = operation
        self.function = function
        super().__init__(
            f"{operation} was refused inside the atomic block {function!r}: what is declared atomic"
            " commits or rolls back as a whole when it ends; leave it by an exception or call"
            " set_rollback_only() to undo it, use session.begin_nested() for a part of it, or move"
            " the call behind the block"
        )


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
    """

    def __init__(
        self, function: str, culprit: str, reason: str, *, own: bool = False, ended: bool
    ) -> None:
        self.function = function
        self.culprit = culprit
        self.reason = reason
        outcome = "was rolled back" if ended else "can only be rolled back"
        if own:
            text = f"it asked for that itself ({reason}); roll back by hand to begin anew"
        else:
            text = (
                f"{culprit!r} failed in its transaction ({reason}), and a part of a transaction"
                " can't fail alone; let the exception leave, or roll back by hand, or, if it may"
                " fail by itself, make it a savepoint with @atomic(db,"
                " current_transaction='savepoint') or a unit of its own with @new_context"
            )
        super().__init__(f"{function!r} {outcome}: {text}")


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


class PoolStarvationError(TxkitError):
    """A unit needed what a suspended caller of its own holds until it returns.

    Raised before anything was sent: waiting could never have succeeded.

    Attributes:
        function: the unit that was refused.
        holder: the suspended caller.
        database: the Database that both use.
    """

    def __init__(self, function: str, holder: str, database: Database) -> None:
        self.function = function
        self.holder = holder
        self.database = database
        super().__init__(
            f"{function!r} needs the write lock of {database!r}, which its own suspended caller"
            f" {holder!r} holds until it ends (SQLite has one writer): run it before or after"
            f" {holder!r}, join with @transactional, or commit {holder!r} by hand first"
        )


def _names(databases: Sequence[Database]) -> str:
    return ", ".join(repr(database.name) for database in databases) or "nothing"
