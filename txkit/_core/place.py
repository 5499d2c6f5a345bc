"""The place: where the running code stands in its context.

The only ContextVar of txkit. It is set and restored by value, never by token: a
generator or another task may be the one that restores it.

Must not know what a context holds.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING

from txkit._core.context import Context, State
from txkit._core.scope import Scope
from txkit.policy.propagation import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable


class Place:
    """Where the running code stands: in which context, and in whose name.

    ``caller`` is the joined function that runs, None while the scope's own does.
    ``before`` is the place to go back to. ``user`` is the task that used the context
    when it came here: a task that inherits the place descends from it.
    """

    __slots__ = ("before", "caller", "context", "user")

    def __init__(self, context: Context, caller: str | None, before: Place | None) -> None:
        self.context = context
        self.caller = caller
        self.before = before
        self.user = context.user


class Heir(Place):
    """The place of a task that has inherited one and uses its context: its children are its own."""

    __slots__ = ()


_CURRENT: ContextVar[Place | None] = ContextVar("txkit", default=None)

current: Callable[[], Place | None] = _CURRENT.get
"""Give the place of the running code, in a context that is open or closed, or None."""

install: Callable[[Place | None], object] = _CURRENT.set
"""Make a place the current one."""


def go_back(mine: Place) -> None:
    """Leave a place; nothing to do for who stands elsewhere.

    A generator may be left before who stands inside it, and a coroutine that is
    closed (by the garbage collector, for example) runs its exits in the task that
    closes it.
    """
    here = current()
    if here is mine:
        install(mine.before)
        return
    inner = here
    while inner is not None and inner.before is not mine:
        inner = inner.before
    if inner is not None:
        inner.before = mine.before
        while here is not None and (here.context.state is State.CLOSED or type(here) is Heir):
            here = here.before
        install(here)


def standing() -> Place | None:
    """Give the place that somebody went to, be it in the name of the running task or before it."""
    place = current()
    while type(place) is Heir:
        place = place.before
    return place


def running_context() -> Context | None:
    """Give the context of the running code if it is open."""
    place = current()
    if place is None or place.context.state is not State.OPEN:
        return None
    return place.context


def surroundings(context: Context | None) -> Surroundings:
    """Say what a decorated call meets in an open context, or None."""
    if context is None:
        return Surroundings.NONE
    return Surroundings.AUTOCOMMIT if context.autocommit else Surroundings.TRANSACTION


def surrounding_context() -> Context | None:
    """Give the context that waits for the running code: the open one, or one set aside."""
    place = current()
    if place is None or place.context.state is State.CLOSED:
        return None
    return place.context


def nowhere(context: Context) -> Place:
    """Give a place outside any context, for what runs while ``context`` is set aside."""
    aside = Context(Scope("no context", atomic=False), context)
    aside.state = State.ASIDE
    return Place(aside, None, None)


def _forget_in_child() -> None:
    install(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
