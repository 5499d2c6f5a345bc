"""Commit or roll back several participants as one.

What is pending is flushed first, in the caller's task: until the first COMMIT
is sent a cancellation rolls everything back. From then on the work runs to its
end (``finish``). Clean up everything, then complain: whatever fails, every
session is closed, and a connection in doubt is discarded.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from txkit._core.boundary import operations
from txkit._core.finish import complete
from txkit.errors import PartialCommitError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
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
    # The common case, kept bare: one Database that was used.
    if len(participants) == 1 and (one := participants[0]).connection is not None:
        if one.has_changes:
            await operations.flush(one)
        work = _commit_in_order(name, participants, close=close)
        await complete(work, timeout_s=one.database.finish_timeout_s, discard=one.discard)
        return
    live = [one for one in participants if one.in_transaction]
    for one in live:
        if one.has_changes:
            await operations.flush(one)
    idle = [one for one in participants if one not in live] if close else []
    if not any(one.connection for one in live):
        for one in live:
            await operations.commit(one, close=close)
    else:
        await to_the_end(live, _commit_in_order(name, live, close=close))
    for one in idle:
        operations.close_idle(one)


async def rollback_all(
    name: str, participants: Sequence[Participant], reason: str, *, close: bool
) -> None:
    """Roll every participant back; close the sessions too, if that is wanted.

    Raises:
        Exception: what failed first; all were tried, what failed was discarded.
    """
    live = [one for one in participants if one.connection is not None]
    if live:
        log_rollback(name, reason)
        await to_the_end(live, _rollback_each(live, close=close))
    for one in participants:
        if one not in live:
            if close:
                operations.close_idle(one)
            elif one.in_transaction:
                await operations.rollback(one, close=False)


def terminate_all(name: str, participants: Sequence[Participant]) -> None:
    """Break every connection off: the coroutine is closed and nothing can be awaited."""
    if participants:
        log.info("%s: connections terminated, its coroutine was closed", name)
    for one in participants:
        operations.terminate(one)


async def _commit_in_order(name: str, live: Sequence[Participant], *, close: bool) -> None:
    committed: list[Database] = []
    for place, one in enumerate(live):
        try:
            await operations.commit(one, close=close)
        except BaseException as error:
            rest = live[place + 1 :]
            log_rollback(name, f"the commit on {one.database!r} failed")
            await _clean_up(error, [one, *rest], close=close)
            if committed and isinstance(error, Exception):
                failed_over = [other.database for other in rest]
                raise PartialCommitError(name, committed, one.database, failed_over) from error
            raise
        committed.append(one.database)
        log.debug("%s: committed on %r", name, one.database)


async def _clean_up(error: BaseException, rest: Sequence[Participant], *, close: bool) -> None:
    try:
        await _rollback_each(rest, close=close)
    except Exception as failure:  # noqa: BLE001 - attached, the first error leaves
        attach(error, failure)


async def _rollback_each(live: Sequence[Participant], *, close: bool) -> None:
    failures: list[BaseException] = []
    for one in live:
        try:
            await operations.rollback(one, close=close)
        except BaseException as error:  # noqa: BLE001 - raised below, after the others
            failures.append(error)
    if failures:
        for other in failures[1:]:
            attach(failures[0], other)
        raise failures[0]


def log_rollback(name: str, reason: str) -> None:
    """Write the one line that every rollback leaves; never a statement's parameters."""
    log.info("%s: rolled back (%s)", name, reason)


def attach(error: BaseException, failure: BaseException) -> None:
    """Tell, on the error that leaves, what failed while cleaning up after it."""
    error.add_note(f"txkit: cleaning up failed too: {type(failure).__name__}: {failure}")


async def to_the_end(live: Sequence[Participant], work: Coroutine[Any, Any, None]) -> None:
    """Let ``work`` on the participants complete, whatever becomes of the caller."""

    def discard() -> None:
        for one in live:
            one.discard()

    await complete(
        work, timeout_s=max(one.database.finish_timeout_s for one in live), discard=discard
    )
