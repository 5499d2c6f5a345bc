"""Who uses a context: one task at a time.

A user may be followed by a task that descends from it, or by any other once it is
finished; it comes back once its descendant is finished. Everything else is overlap,
and refused before anything is sent: SQLAlchemy would let two tasks share a session,
and each undo what the other did.

Which task descends from which is read from the ContextVar: a task inherits the place
that its creator stood in. Must not send anything.
"""

from __future__ import annotations

import threading
from asyncio import Task, current_task
from typing import TYPE_CHECKING, Any

from txkit._core.context import State
from txkit._core.finish import on_behalf_of
from txkit._core.place import Heir, current, install
from txkit._core.turn import NOBODY, User, current_task_or_none
from txkit._core.waiting import suspended_on
from txkit.errors import ConcurrentSessionUseError, NoContextError

if TYPE_CHECKING:
    from txkit._core.context import Context
    from txkit._core.place import Place


def open_place(function: str) -> Place:
    """Give the current place in an open context, or say what is missing.

    Raises:
        NoContextError: there is none.
        ContextClosedError: its boundary has ended.
        ConcurrentSessionUseError: another task uses it.
    """
    place = current()
    if place is None or place.context.state is State.ASIDE:
        raise NoContextError(function)
    context = place.context
    if context.state is not State.OPEN and not _ends_it(context):
        context.check_open(f"{function}()")
    try:
        is_user = context.user.task is current_task()
    except RuntimeError:  # a thread: below, where it is told
        is_user = False
    if not is_user:
        use(context, f"{function}()")
    return place


def joinable_context(function: str) -> Context | None:
    """Give the open context, for who would join it; None where a unit of its own is in place.

    A call that has joined a context is a part of it: once that has ended, what is called inside
    can't become a unit of its own, or half of the call would be committed alone.

    Raises:
        ContextClosedError: the running task is inside of such a call.
    """
    place = current()
    if place is None or place.context.state is State.ASIDE:
        return None
    context = place.context
    if context.state is State.OPEN:
        return context
    here = current_task()
    while place is not None and place.context is context:
        if place.user.task is here and type(place) is not Heir:
            context.check_open(repr(function))
        place = place.before
    return None


def use(context: Context, what: str) -> None:
    """Let the running task use the context.

    Raises:
        ConcurrentSessionUseError: another task uses it; nothing was sent or marked.
    """
    try:
        task = current_task()
    except RuntimeError:  # no event loop runs in this thread
        raise _in_thread(context, what) from None
    if context.user.task is task:
        return
    before, mine = latest_user(context), None if task is None else on_behalf_of(task)
    if mine is None or before.task is mine:
        return
    if before.task is not None:
        if before.task.get_loop() is not mine.get_loop():
            raise _in_thread(context, what)
        if not _may_follow(before, mine, context):
            raise ConcurrentSessionUseError(
                what,
                context.name,
                task=mine.get_name(),
                user=before.task.get_name(),
                runs=_runs(before),
            )
    context.user = User(mine, None if before is NOBODY else before)
    place = current()
    if place is not None and place.context is context:
        install(Heir(context, place.caller, place))


def latest_user(context: Context) -> User:
    """Give the user that is not finished, and was the last one to come."""
    user: User | None = context.user
    while user is not None and (user.task is None or user.task.done()):
        user.task = None  # its place may be kept by an idle connection
        user = user.before
    context.user = user or NOBODY
    return context.user


def take_turn(context: Context) -> User:
    """Let the running task drive the next step of a stream, unless another one is at work."""
    if latest_user(context) is NOBODY:
        context.user = User(current_task())
    return context.user if context.user.task is current_task() else NOBODY


def end_turn(context: Context) -> None:
    """Note that the step is over: its driver need not be finished for another one to follow."""
    task, above, user = current_task(), None, context.user
    while user.task is not task and user.before is not None:
        above, user = user, user.before
    if user.task is not task:
        return
    if above is None:
        context.user = user.before or NOBODY
    else:
        above.before = user.before


def other_user(context: Context) -> str | None:
    """Name the unfinished task that uses the context beside the running one."""
    user, task = latest_user(context), current_task_or_none()
    if user.task is None or task is None or user.task is on_behalf_of(task):
        return None
    return None if _descends_from(user) else user.task.get_name()


def refuse_half(context: Context, name: str) -> None:
    """Refuse to commit while another task is at work: a part of it would be missing.

    Who ends it uses it, be it a task that has only inherited it.

    Raises:
        ConcurrentSessionUseError: nothing was sent; it is to be rolled back.
    """
    other = other_user(context)
    if other is None:
        before, task = latest_user(context), current_task_or_none()
        if task is not None and before.task is not on_behalf_of(task):
            context.user = User(task, None if before is NOBODY else before)
    else:
        here = current_task_or_none()
        mine = "?" if here is None else here.get_name()
        runs = _runs(latest_user(context))
        raise ConcurrentSessionUseError(
            name, context.name, task=mine, user=other, runs=runs, is_end=True
        )


def _may_follow(user: User, task: Task[Any], context: Context) -> bool:
    """Whether a task descends from the user, who does nothing in the context just now.

    Or has inherited the context, and the user waits for it: so does a descendant that was made
    before its parent ever came here.
    """
    if context.is_at_work:
        return False
    return _descends_from(user) or (_has_inherited(context) and user.task in suspended_on({task}))


def _has_inherited(context: Context) -> bool:
    place = current()
    while place is not None and place.context is not context:
        place = place.before
    return place is not None


def _descends_from(user: User) -> bool:
    """Whether the running task was created, at whatever remove, by the user."""
    place = current()
    while place is not None and place.user.task is not user.task:
        place = place.before
    return place is not None


def _ends_it(context: Context) -> bool:
    """Whether the running code is a part of the end itself: a listener of SQLAlchemy's events."""
    task = current_task_or_none()
    is_user = task is not None and on_behalf_of(task) is context.user.task
    return context.state is State.ENDING and is_user


def _runs(user: User) -> str | None:
    """Name what a task runs."""
    coroutine = None if user.task is None else user.task.get_coro()
    return getattr(coroutine, "__qualname__", None)


def _in_thread(context: Context, what: str) -> ConcurrentSessionUseError:
    user = latest_user(context).task
    name = "nobody" if user is None else user.get_name()
    thread = threading.current_thread().name
    return ConcurrentSessionUseError(what, context.name, task=thread, user=name, is_thread=True)
