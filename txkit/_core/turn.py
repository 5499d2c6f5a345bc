"""Whose turn it is at a context: the task that uses it, and those that handed over to it.

Must not know contexts: ``users`` decides who may come.
"""

from __future__ import annotations

from asyncio import Task, current_task
from typing import Any


def current_task_or_none() -> Task[Any] | None:
    """Give the running task; None where no event loop runs, as in a coroutine's last moments."""
    try:
        return current_task()
    except RuntimeError:
        return None


class User:
    """A task that uses a context, and the one before it, which comes back once it is finished."""

    __slots__ = ("before", "task")

    def __init__(self, task: Task[Any] | None, before: User | None = None) -> None:
        self.task = task
        self.before = before


NOBODY = User(None)
"""Who uses a context that waits between the steps of a stream."""
