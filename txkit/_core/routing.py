"""Where a participant's next statement goes, and when it must not wait for that.

A session stays bound to the engine that it was made with; the host may have been
switched since, and the context may ask for characteristics, which are execution
options of an engine on the same pool: they ride on the BEGIN and end with it.
Must not begin or end anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Engine

from txkit._core.stuck import is_stuck
from txkit._core.waiting import suspended_on
from txkit.database.sqlite import READ_ONLY, is_memory
from txkit.database.url import SQLITE
from txkit.errors import IncompatibleTransactionError, PoolStarvationError
from txkit.policy.characteristics import Isolation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

    from txkit._core.context import Context
    from txkit._core.participant import Participant
    from txkit.database.engines import ExecutionOptions


def options_of(context: Context | None, engine: Engine) -> ExecutionOptions:
    """Give the execution options that the context's transactions have on an engine."""
    if context is None or context.is_plain:
        return ()
    asked = context.characteristics
    if asked.autocommit:
        return (("isolation_level", "AUTOCOMMIT"),)
    if engine.dialect.name == SQLITE:  # its one level is the strictest
        return ((READ_ONLY, True),) if asked.read_only else ()
    options: list[tuple[str, object]] = []
    if asked.isolation is Isolation.READ_UNCOMMITTED:  # what PostgreSQL itself makes of it
        options.append(("isolation_level", str(Isolation.READ_COMMITTED)))
    elif asked.isolation is not None:
        options.append(("isolation_level", str(asked.isolation)))
    if asked.read_only is not None:
        options.append(("postgresql_readonly", asked.read_only))
    if asked.deferrable:
        options.append(("postgresql_deferrable", True))
    return tuple(options)


def live_bind(one: Participant, bind: Engine | Connection) -> Engine | Connection:
    """Give the engine that is to the present host what ``bind`` was to the first one.

    Raises:
        TypeError: ``bind`` belongs to another engine.
        IncompatibleTransactionError: it has other options than the unit declared.
    """
    live = one.engine.engine.sync_engine
    if bind is one.home:
        return one.engine.derived(live, one.options) if one.options else live
    if bind.engine.pool is not one.home.pool:
        message = (
            f"a session of {one.database!r} was routed to another engine: each Database has"
            " one; make a Database for the other engine, and drop binds= and get_bind()"
        )
        raise TypeError(message)
    if not isinstance(bind, Engine) or (live is one.home and not one.options):
        return bind
    key = (bind, live)
    if key not in one.moved:
        given, declared = bind.get_execution_options(), dict(one.options)
        if bind is not one.sync.bind:  # the factory's is what holds where nothing is declared
            wrong = option_conflict(one, "bind_arguments", {**declared, **given}, declared)
            if wrong is not None:
                raise wrong
        options = {**given, **declared}
        one.moved[key] = live.execution_options(**options)
    return one.moved[key]


def option_conflict(
    one: Participant, function: str, given: Mapping[str, Any], expected: Mapping[str, object]
) -> IncompatibleTransactionError | None:
    """Give the error for the first option that is not what the unit has."""
    for option, found in expected.items():
        asked = given.get(option)
        if asked != found:
            return IncompatibleTransactionError(
                function, one.name, option, asked=asked, found=found
            )
    return None


def isolation_of(one: Participant) -> str | None:
    """Give the level that the transactions have where none was declared; None: not known yet."""
    engine, dialect = one.home, one.home.dialect
    if dialect.name == SQLITE:
        return "SERIALIZABLE"
    bind = one.sync.bind or engine
    level: object = (
        bind.get_execution_options().get("isolation_level")
        or getattr(dialect, "_on_connect_isolation_level", None)
        or getattr(dialect, "default_isolation_level", None)  # known once it has connected
    )
    return None if level is None else str(level).replace("_", " ").upper()


def only_reads(one: Participant) -> bool:
    """Whether the session's own engine makes its transactions read-only."""
    bind = one.sync.bind or one.home
    return bool(bind.get_execution_options().get("postgresql_readonly"))


def refuse_starvation(one: Participant, *, reads: bool) -> None:
    """Refuse to wait for a caller that waits for us: in the same task, or for ours.

    Raises:
        PoolStarvationError: the caller holds SQLite's write lock.
    """
    if one.home.dialect.name != SQLITE or (one.connection is not None and not _autocommits(one)):
        return
    if is_memory(one.home):  # what there is to wait for is its one connection
        return
    task = asyncio.current_task()
    if task is None or _reads_only(one) or (reads and _autocommits(one)):
        return
    waiting = suspended_on({task})
    outer = one.outer
    while outer is not None:
        holder = outer.participants.get(one.database)
        if holder is not None and _holds_write_lock(holder) and is_stuck(outer, waiting):
            raise PoolStarvationError(one.name, (outer.name,), one.database)
        outer = outer.outer


def _holds_write_lock(one: Participant) -> bool:
    return one.connection is not None and not (_reads_only(one) or _autocommits(one))


def _reads_only(one: Participant) -> bool:
    return one.context is not None and bool(one.context.characteristics.read_only)


def _autocommits(one: Participant) -> bool:
    return one.context is not None and one.context.autocommit
