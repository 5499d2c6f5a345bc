"""Would committing the open transaction first lose or reveal anything?

Asked when an atomic block with no ``current_transaction`` meets a transaction
that nobody declared atomic. What the session knows is looked up; what only the
server knows is one query. When in doubt the answer is yes. A SELECT that calls
a function with a hidden effect (``pg_notify``, ``set_config``) is not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.routing import isolation_of
from txkit.database import sqlite
from txkit.database.url import POSTGRESQL, SQLITE
from txkit.policy.characteristics import is_above

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from txkit._core.participant import Participant

# Every writer and every row lock has a transaction id; table and advisory locks are in pg_locks;
# a result that is being streamed is an open portal.
_POSTGRESQL = """
SELECT CASE
  WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN 'it wrote or locked rows'
  WHEN EXISTS (SELECT FROM pg_cursors WHERE name <> '') THEN 'a result is being streamed'
  WHEN EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'
    AND mode <> 'AccessShareLock') THEN 'it holds a lock'
END
"""


async def harm_of_committing(one: Participant) -> str | None:
    """Give the reason why the open transaction must not just be committed, or None."""
    known = _known_harm(one)
    if known is not None or one.connection is None:
        return known
    if one.connection.dialect.name == SQLITE:
        return sqlite.harm_of_committing(one.connection)
    if not one.only_read:
        return "it ran a statement that is no plain SELECT"
    connection = one.connection
    return await one.session.run_sync(lambda _: _ask_server(connection))


def _known_harm(one: Participant) -> str | None:
    if one.is_explicit:
        return "session.begin() opened it and will end it"
    if one.sync.in_nested_transaction():
        return "a savepoint is open in it"
    if one.has_changes:
        return "ORM changes wait to be flushed"
    declared = None if one.context is None else one.context.characteristics.isolation
    if declared is not None and is_above(declared, isolation_of(one)):
        return f"its boundary asked for {declared}"
    if one.connection is not None and _isolation(one.connection) != _isolation(
        one.connection.engine
    ):
        return "an isolation level was asked for"
    return None


def _isolation(connection: Connection | Engine) -> object:
    return connection.get_execution_options().get("isolation_level")


def _ask_server(connection: Connection) -> str | None:
    if connection.dialect.name != POSTGRESQL:
        return "what it did is not known"
    reason: str | None = connection.exec_driver_sql(_POSTGRESQL).scalar_one()
    return reason
