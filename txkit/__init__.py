"""Transactions by decorator for any coroutine on SQLAlchemy 2 and asyncpg.

The layout, from the top down; imports go downwards only::

    decorators/       transactional, atomic, new_context: their faces
    sessions.py       db_session and its family: what a coroutine asks for
    hooks.py          before_commit, after_commit and its like: what follows an end
    _core/boundary/   the only place that commits, rolls back, closes
    _core/guard.py    the guarded session: it asks before anything is sent
    _core/permission.py  what it may send now, and what is refused
    _core/starvation.py  what nobody waits for in vain: a connection; lockout.py: a lock
    _core/telling.py  runs the hooks that _core/hooks.py keeps
    _core/participant.py  one Database's part in a context; breakable.py: what errors do to it
    _core/users.py    which task may use it now; turn.py: whose turn it is
    _core/place.py    the only ContextVar: where the running code stands
    _core/context.py  what is open; scope.py: what fails as a whole; limit.py: until when
    database/         engines, hosts, dialects
    _core/development.py  the development mode: likely mistakes, told as warnings
    _core/waiting.py  which tasks wait for a task
    _core/finish.py   lets an ending complete under cancellation
    policy/           what should happen: pure tables and rules
    errors.py         every exception
"""

from txkit._core.development import DevelopmentWarning
from txkit.database import Database
from txkit.decorators import atomic, new_context, transactional
from txkit.errors import (
    AfterCommitError,
    AtomicControlError,
    CommitOutcomeUnknownError,
    ConcurrentSessionUseError,
    ContextClosedError,
    IncompatibleTransactionError,
    NoContextError,
    OpenTransactionError,
    PartialCommitError,
    PoolStarvationError,
    TransactionNotAllowedError,
    TransactionRequiredError,
    TransactionTimeoutError,
    TxkitError,
    UnexpectedRollbackError,
)
from txkit.hooks import after_commit, after_completion, after_rollback, before_commit
from txkit.policy.propagation import Propagation
from txkit.sessions import (
    atomic_db_session,
    close_db_session,
    commit_db_session,
    db_session,
    in_transaction,
    new_non_ctx_atomic_session,
    new_non_ctx_session,
    rollback_db_session,
    run_in_new_ctx,
    set_rollback_only,
)

__all__ = [
    "AfterCommitError",
    "AtomicControlError",
    "CommitOutcomeUnknownError",
    "ConcurrentSessionUseError",
    "ContextClosedError",
    "Database",
    "DevelopmentWarning",
    "IncompatibleTransactionError",
    "NoContextError",
    "OpenTransactionError",
    "PartialCommitError",
    "PoolStarvationError",
    "Propagation",
    "TransactionNotAllowedError",
    "TransactionRequiredError",
    "TransactionTimeoutError",
    "TxkitError",
    "UnexpectedRollbackError",
    "after_commit",
    "after_completion",
    "after_rollback",
    "atomic",
    "atomic_db_session",
    "before_commit",
    "close_db_session",
    "commit_db_session",
    "db_session",
    "in_transaction",
    "new_context",
    "new_non_ctx_atomic_session",
    "new_non_ctx_session",
    "rollback_db_session",
    "run_in_new_ctx",
    "set_rollback_only",
    "transactional",
]
