"""Say, on the error that leaves, what failed beside it. Nothing is ever lost."""

from __future__ import annotations

import logging

log = logging.getLogger("txkit")

_LONGEST = 200


def attach(error: BaseException, what: str, failure: BaseException | None = None) -> None:
    """Attach a note to ``error``, which itself leaves unchanged."""
    words = what if failure is None else f"{what}: {type(failure).__name__}: {failure}"
    try:
        error.add_note(f"txkit: {words}")
    except Exception:
        log.warning("%s, while %s was leaving", what, type(error).__name__, exc_info=failure)


class LeftEarly(BaseException):
    """Why a stream is rolled back that its consumer gave up. Never leaves."""


def left_by(error: BaseException) -> str:
    """Say, for the log, what made a unit roll back."""
    if isinstance(error, LeftEarly):
        return "its consumer left it early"
    return f"{type(error).__name__} left it"


def in_words(error: BaseException) -> str:
    """Give an exception in one line, without the statement and parameters of a database error."""
    line = str(error).partition("\n")[0][:_LONGEST]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
