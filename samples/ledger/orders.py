"""An order: what somebody wants moved from one account to another. Pure values, no database.

Money is a whole number of cents, never a float.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_CENTS = 10**14
LONGEST = {"key": 64, "source": 64, "target": 64, "text": 200}


class MalformedError(ValueError):
    """This is no order at all."""


@dataclass(frozen=True, slots=True)
class Order:
    """A transfer to be made. ``key`` makes it safe to ask twice.

    Raises:
        MalformedError: the values can't be an order's.
    """

    key: str
    source: str
    target: str
    amount_cents: int
    text: str = ""

    def __post_init__(self) -> None:
        for field, longest in LONGEST.items():
            check_text(field, getattr(self, field), longest, optional=field == "text")
        if not 0 < self.amount_cents <= MOST_CENTS:
            raise MalformedError("the amount must be more than 0.00, and not astronomical")
        if self.source == self.target:
            raise MalformedError("source and target are the same account")


class RefusedError(Exception):
    """The ledger can't post the order. Nothing of it was written."""

    def __init__(self, order: Order, reason: str) -> None:
        self.order = order
        self.reason = reason
        super().__init__(reason)


class UnknownAccountError(RefusedError):
    """One of the accounts is not there."""


class OverdrawnError(RefusedError):
    """The source account has not got that much."""


class KeyTakenError(RefusedError):
    """The key was used for another order."""


def check_text(field: str, value: str, longest: int, *, optional: bool = False) -> None:
    """Refuse what would not fit its column or its line.

    Raises:
        MalformedError: empty, too long, or with characters that can't be printed.
    """
    if not value.isprintable() or len(value) > longest:
        raise MalformedError(
            f"{field} must be printable, on one line, and of at most {longest} characters"
        )
    if not (optional or value.strip()):
        raise MalformedError(f"{field} is missing")


def parse_cents(text: str) -> int:
    """Read ``12`` or ``12.34`` as cents.

    Raises:
        MalformedError: anything else.
    """
    match = re.fullmatch(r"([0-9]{1,12})(?:\.([0-9]{2}))?", text.strip())
    if match is None:
        raise MalformedError(f"{text[:30]!r} is no amount: write 12 or 12.34")
    return int(match[1]) * 100 + int(match[2] or 0)


def show_cents(cents: int) -> str:
    """Write cents as ``1 234.56``."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole:,}.{rest:02}".replace(",", " ")
