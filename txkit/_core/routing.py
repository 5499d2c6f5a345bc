"""Where a participant's next statement goes, and when it must not wait for that.

A session stays bound to the engine that it was made with; the host may have
been switched since. Must not begin or end anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.engine import Engine

from txkit._core.context import State
from txkit.database.url import SQLITE
from txkit.errors import PoolStarvationError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from txkit._core.participant import Participant


def live_bind(one: Participant, bind: Engine | Connection) -> Engine | Connection:
    """Give the engine that is to the present host what ``bind`` was to the first one.

    Raises:
        TypeError: ``bind`` belongs to another engine.
    """
    live = one.engine.engine.sync_engine
    if bind is one.home:
        return live
    if bind.engine.pool is not one.home.pool:
        message = (
            f"a session of {one.database!r} was routed to another engine: each Database has"
            " one; make a Database for the other engine, and drop binds= and get_bind()"
        )
        raise TypeError(message)
    if live is one.home or not isinstance(bind, Engine):
        return bind
    key = (bind, live)
    if key not in one.moved:
        one.moved[key] = live.execution_options(**bind.get_execution_options())
    return one.moved[key]


def refuse_starvation(one: Participant) -> None:
    """Refuse to wait for a caller that waits for us: it runs in the same task.

    Raises:
        PoolStarvationError: the caller holds SQLite's write lock.
    """
    if one.home.dialect.name != SQLITE:
        return
    outer = one.outer
    while outer is not None:
        holder = outer.participants.get(one.database)
        is_ours = outer.state is State.OPEN and outer.task is asyncio.current_task()
        if is_ours and holder is not None and holder.connection is not None:
            raise PoolStarvationError(one.name, outer.name, one.database)
        outer = outer.outer
