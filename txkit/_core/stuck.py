"""Who uses a context, and whether it can come to an end.

A context gives back what it holds when its boundary ends, or earlier, by the hand of
whoever uses it. So it is stuck when none of them can go on.

Must not know who asks, nor for what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txkit._core.context import State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Set as AbstractSet

    from txkit._core.context import Context

    Tasks = AbstractSet[asyncio.Task[Any]]


def is_stuck(context: Context | None, waiting: Tasks) -> bool:
    """Whether everybody who uses an open context is one of the tasks that wait."""
    users = _users_of(context)
    return bool(users) and users <= waiting


def is_held_up(context: Context | None, waiting: Tasks) -> bool:
    """Whether anybody who uses an open context is one of the tasks that wait."""
    return not _users_of(context).isdisjoint(waiting)


def _users_of(context: Context | None) -> Tasks:
    """Give the tasks that have not ended; of a stream between its steps nobody knows the next."""
    users: set[asyncio.Task[Any]] = set()
    user = None if context is None or context.state is not State.OPEN else context.user
    while user is not None:
        if user.task is not None and not user.task.done():
            users.add(user.task)
        user = user.before
    return users
