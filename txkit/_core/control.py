"""Who may end a participant's transaction just now, and the boundary's turn at it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txkit._core.participant import Participant


class Control(Enum):
    """Who may end the transaction just now."""

    USER = "the user, by hand"
    BOUNDARY = "the boundary, which is at it"
    CLOSED = "nobody, the session was closed"


class ByBoundary:
    """While it is entered, the participant's guard lets everything pass."""

    __slots__ = ("_before", "_one")

    def __init__(self, one: Participant) -> None:
        self._one = one

    def __enter__(self) -> None:
        """Take control."""
        self._before = self._one.control
        self._one.control = Control.BOUNDARY

    def __exit__(self, *_: object) -> None:
        """Give it back, unless the session was closed."""
        if self._one.control is Control.BOUNDARY:
            self._one.control = self._before
