"""What an atomic block does about a transaction that is already open.

One total table over the declared mode and what the block meets. Two answers
need a look first (``COMMIT_IF_HARMLESS``): whoever acts on them asks the
session and the server whether the open transaction could lose anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class CurrentTransaction(StrEnum):
    """What becomes of an open transaction that no atomic block owns."""

    COMMIT = "commit"
    """Commit it first."""
    ROLLBACK = "rollback"
    """Roll it back first."""
    APPEND = "append"
    """Use it, and commit or roll it back with the block."""
    SAVEPOINT = "savepoint"
    """Be a savepoint of it; durable when it commits."""
    RAISE = "raise"
    """``OpenTransactionError``, whatever it holds."""


class Met(Enum):
    """What a block finds on one Database when it starts."""

    NOTHING = "no transaction"
    OPEN = "a transaction that no atomic block owns"
    ATOMIC = "the transaction of an atomic block"


class Entry(Enum):
    """What the block is to do on that Database before its body runs."""

    OWN = "begin a transaction of its own"
    SAVEPOINT = "set a savepoint"
    APPEND = "take over the open transaction"
    COMMIT_FIRST = "commit the open transaction, then begin its own"
    ROLLBACK_FIRST = "roll the open transaction back, then begin its own"
    COMMIT_IF_HARMLESS = "commit it first if that loses nothing, else refuse"
    REFUSE_OPEN = "refuse: a transaction is open"
    REFUSE_CONTROL = "refuse: an atomic block can't be broken up"


_ON_OPEN = {
    None: Entry.COMMIT_IF_HARMLESS,
    CurrentTransaction.COMMIT: Entry.COMMIT_FIRST,
    CurrentTransaction.ROLLBACK: Entry.ROLLBACK_FIRST,
    CurrentTransaction.APPEND: Entry.APPEND,
    CurrentTransaction.SAVEPOINT: Entry.SAVEPOINT,
    CurrentTransaction.RAISE: Entry.REFUSE_OPEN,
}


@dataclass(frozen=True, slots=True)
class Mode:
    """What a block was told, and what its silence means where a transaction is open."""

    declared: CurrentTransaction | None = None
    left_out: CurrentTransaction | None = None


def decide_entry(mode: Mode, met: Met) -> Entry:
    """Look up what a block with ``mode`` does about what it ``met``."""
    if met is Met.ATOMIC:
        if mode.declared in {None, CurrentTransaction.SAVEPOINT}:
            return Entry.SAVEPOINT
        return Entry.REFUSE_CONTROL
    if met is Met.OPEN:
        return _ON_OPEN[mode.declared or mode.left_out]
    return Entry.OWN


def parse_mode(mode: str | None, left_out: CurrentTransaction | None = None) -> Mode:
    """Check the option.

    Raises:
        ValueError: the mode is unknown.
    """
    if mode is None:
        return Mode(None, left_out)
    try:
        return Mode(CurrentTransaction(mode), left_out)
    except ValueError:
        choices = ", ".join(repr(str(known)) for known in CurrentTransaction)
        message = f"current_transaction={mode!r} is unknown: give one of {choices}, or leave it out"
        raise ValueError(message) from None
