"""Transactions by decorator for any coroutine on SQLAlchemy 2 and asyncpg.

The layout, from the top down; imports go downwards only::

    decorators/       transactional, atomic, new_context: their faces
    sessions.py       db_session and its family: what a coroutine asks for
    _core/boundary/   the only place that commits, rolls back, closes
    _core/guard.py    the guarded session: it asks before anything is sent
    _core/participant.py  one Database's part in a context
    _core/context.py  the only ContextVar, and what it holds; scope.py: what fails as a whole
    database/         engines, hosts, dialects
    _core/finish.py   lets an ending complete under cancellation
    policy/           what should happen: pure tables and rules
    errors.py         every exception
"""

from txkit.database import Database
from txkit.decorators import atomic, new_context, transactional
from txkit.errors import (
    AtomicControlError,
    ContextClosedError,
    NoContextError,
    OpenTransactionError,
    PartialCommitError,
    PoolStarvationError,
    TransactionRequiredError,
    TxkitError,
    UnexpectedRollbackError,
)
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
    "AtomicControlError",
    "ContextClosedError",
    "Database",
    "NoContextError",
    "OpenTransactionError",
    "PartialCommitError",
    "PoolStarvationError",
    "Propagation",
    "TransactionRequiredError",
    "TxkitError",
    "UnexpectedRollbackError",
    "atomic",
    "atomic_db_session",
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
