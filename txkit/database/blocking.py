"""Ask PostgreSQL who blocks a statement, and cancel it: on a connection beside the pool.

The connection is made as the pool makes its own (with its credentials, and the engine's
listeners), and closed after the one question: a pool may be empty, and just then it matters.

Must not know sessions and contexts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only

from txkit.database.sqlite import AT_WORK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.pool import Pool

_BLOCKERS = """
WITH RECURSIVE blocker (pid) AS (
 SELECT unnest(pg_blocking_pids($1::int4))
 UNION
 SELECT unnest(pg_blocking_pids(pid)) FROM blocker)
SELECT pid, CASE WHEN $3 THEN pg_cancel_backend($1::int4) END AS was_cancelled
 FROM blocker WHERE pid = ANY ($2::int4[]) LIMIT 1
"""


class Server:
    """The server, as far as it is asked here."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def blocker_of(
        self, pid: int, among: Sequence[int | None], *, cancel: bool = False
    ) -> int | None:
        """Give one of some backends that blocks another one, itself or through others; or None.

        ``cancel``: break the statement of the other one off, if there is one.
        """
        found: int | None = await self._driver.fetchval(_BLOCKERS, pid, among, cancel)
        return found


def ask_beside(pool: Pool, question: Callable[[Server], Awaitable[None]]) -> None:
    """Open a connection outside of a pool, let ``question`` use it, and close it."""
    alone = pool.recreate()
    try:
        checked_out: Any = alone.connect()
        try:
            await_only(question(Server(checked_out.driver_connection)))
        except BaseException:
            checked_out.invalidate()
            raise
        checked_out.close()
    finally:
        alone.dispose()


def is_at_work(connection: Connection) -> bool:
    """Whether a statement waits for its answer; False where the adapter doesn't tell."""
    if connection.closed or connection.invalidated:
        return False
    adapted: Any = connection.connection.dbapi_connection
    mutex = getattr(adapted, "_execute_mutex", None)
    if mutex is not None and mutex.locked():
        return True
    return bool(connection.info.get(AT_WORK))
