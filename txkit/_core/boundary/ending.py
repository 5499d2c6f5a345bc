"""Commit or roll back several participants as one.

What is pending is flushed first, in the caller's task: until the first COMMIT
is sent a cancellation rolls everything back. From then on the work runs to its
end (``finish``). Clean up everything, then complain: whatever fails, every
session is closed, and a connection in doubt is discarded.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from txkit._core.boundary import operations
from txkit._core.finish import complete
from txkit._core.hooks import Outcome
from txkit._core.notes import attach, left_by
from txkit.errors import PartialCommitError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from typing import Any

    from txkit._core.participant import Participant
    from txkit.database import Database

log = logging.getLogger("txkit")


async def commit_all(name: str, participants: Sequence[Participant], *, close: bool) -> None:
    """Flush every participant, then commit them in order.

    Raises:
        PartialCommitError: a later one failed; nothing is left open.
        Exception: the first one failed; everything was rolled back.

    A failed flush raises before anything was ended: the caller rolls back.
    """
    await flush_all(participants)
    used = [one for one in participants if one.connection is not None]
    if used:
        await to_the_end(used, _commit_in_order(name, used, close=close), revocable=True)
    if len(used) < len(participants):
        try:
            await _end_unused(participants, close=close)
        except Exception as error:
            context = participants[0].context
            if not used or context is None:
                raise
            context.hooks().failures.append((Outcome.COMMITTED, error))  # a listener's


async def flush_all(participants: Iterable[Participant]) -> None:
    """Send every participant's pending ORM changes."""
    for one in participants:
        if one.has_changes:
            await operations.flush(one)


async def rollback_all(
    name: str, participants: Sequence[Participant], reason: str, *, close: bool
) -> None:
    """Roll every participant back; close the sessions too, if that is wanted.

    Raises:
        Exception: what failed first; all were tried, what failed was discarded.
    """
    used = [one for one in participants if one.connection is not None]
    try:
        if len(used) < len(participants):
            await _end_unused([one for one in participants if one not in used], close=close)
    finally:  # a listener of the user's may raise for one that did nothing
        if used:
            log_rollback(name, reason)
            work = each(partial(operations.rollback, one, close=close) for one in used)
            await to_the_end(used, work)


async def rollback_after(
    name: str, participants: Sequence[Participant], error: BaseException
) -> None:
    """Roll back and close because of ``error``, which leaves: what fails is attached to it."""
    try:
        await rollback_all(name, participants, left_by(error), close=True)
    except Exception as failure:  # noqa: BLE001 - the first error leaves
        attach(error, "cleaning up failed too", failure)


def terminate_all(name: str, participants: Sequence[Participant]) -> None:
    """Break every connection off: the coroutine is closed and nothing can be awaited."""
    if participants:
        log.info("%s: connections terminated, its coroutine was closed", name)
    for one in participants:
        operations.terminate(one)


async def each(steps: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Take every step, whatever fails; then raise what failed first, with the rest attached."""
    failures: list[BaseException] = []
    for step in steps:
        try:
            await step()
        except BaseException as error:  # noqa: BLE001 - raised below, after the others
            failures.append(error)
    for other in failures[1:]:
        attach(failures[0], "cleaning up failed too", other)
    if failures:
        raise failures[0]


async def to_the_end(
    used: Sequence[Participant], work: Coroutine[Any, Any, None], *, revocable: bool = False
) -> None:
    """Let ``work`` on the participants complete, whatever becomes of the caller.

    ``revocable``: it is not begun for a caller who is cancelled before it sends anything.
    """

    def discard() -> None:
        for one in used:
            one.discard()

    timeout_s = max([one.database.finish_timeout_s for one in used])
    context = used[0].context
    limit = None if context is None else context.limit
    deadline = None
    if limit is not None:
        deadline = max(limit.deadline, asyncio.get_running_loop().time()) + timeout_s
    await complete(
        work, timeout_s=timeout_s, discard=discard, deadline=deadline, revocable=revocable
    )
    # Who waits for the connection gets it before this task can take it again: without this the
    # slowest of many units took a third longer, measured in tests/benchmarks.
    await asyncio.sleep(0)


def log_rollback(name: str, reason: str) -> None:
    """Write the one line that every rollback leaves; never a statement's parameters."""
    log.info("%s: rolled back (%s)", name, reason)


async def _commit_in_order(name: str, used: Sequence[Participant], *, close: bool) -> None:
    committed: list[Database] = []
    for place, one in enumerate(used):
        try:
            await operations.commit(name, one, close=close)
        except BaseException as error:
            rest = used[place + 1 :]
            log_rollback(name, f"the commit on {one.database!r} failed")
            try:
                await each(partial(operations.rollback, it, close=close) for it in used[place:])
            except Exception as failure:  # noqa: BLE001 - attached, the first error leaves
                attach(error, "cleaning up failed too", failure)
            if committed and isinstance(error, Exception):
                raise PartialCommitError(
                    name, committed, one.database, [other.database for other in rest]
                ) from error
            raise
        committed.append(one.database)
        log.debug("%s: committed on %r", name, one.database)


async def _end_unused(participants: Sequence[Participant], *, close: bool) -> None:
    """End what holds no connection; nothing is sent."""
    for one in participants:
        if one.connection is None:
            if close:
                operations.close_idle(one)
            elif one.in_transaction:
                await operations.rollback(one, close=False)
