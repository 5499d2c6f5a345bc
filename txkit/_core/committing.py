"""Say what a COMMIT that failed means: refused, rolled back, or nobody knows.

Must not send anything.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from txkit._core.notes import in_words
from txkit._core.scope import Mark
from txkit.database.gone import TransactionGoneError
from txkit.database.postgresql import LOST, is_broken_off, was_sent
from txkit.errors import CommitOutcomeUnknownError, UnexpectedRollbackError

if TYPE_CHECKING:
    from txkit._core.participant import Participant


def explained(name: str, one: Participant, error: BaseException) -> BaseException:
    """Give the error that is to leave; a refusal of the database's leaves as it is."""
    if isinstance(error, UnexpectedRollbackError) and error.ended:
        # COMMIT's own answer, which names nobody.
        told: BaseException = Mark(error.culprit, error.reason, how=error.how).refusal(
            name, ended=True
        )
        told.__cause__ = one.failure
        if error.culprit == LOST:
            told.__cause__ = one.failure or error
            one.discard()
    elif isinstance(error, TransactionGoneError):
        told = _unknown(name, one, error, str(error))
    elif is_broken_off(error) or (_is_lost(error) and not was_sent(error)):
        what = getattr(error, "orig", None) or error
        reason = f"it was lost before COMMIT was sent: {in_words(what)}"
        told = Mark(LOST, reason, how="lost").refusal(name, ended=True)
        told.__cause__ = error
        one.discard()
    elif _is_lost(error):
        told = _unknown(name, one, error, "the connection was lost, and COMMIT was not answered")
    elif isinstance(error, CancelledError):
        told = _unknown(name, one, error, "COMMIT was broken off")
    else:
        return error
    return told


def _unknown(
    name: str, one: Participant, error: BaseException, reason: str
) -> CommitOutcomeUnknownError:
    one.in_doubt = True
    unknown = CommitOutcomeUnknownError(name, one.database, reason)
    unknown.__cause__ = error
    if one.context is not None and one.context.limit is not None:
        one.context.limit.in_doubt = unknown
    return unknown


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and error.connection_invalidated
