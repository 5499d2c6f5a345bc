"""Propagation: what a decorated call does about the context around it.

One total table, looked up and never computed. After the values of Spring's
``Propagation``.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class Propagation(StrEnum):
    """How a decorated function meets a context that is already open.

    Members may be given as strings: ``@transactional(propagation="mandatory")``.
    """

    REQUIRED = "required"
    """Join the context that is there, else open one. The default."""
    REQUIRES_NEW = "requires_new"
    """Open another context with connections of its own; the caller's comes back."""
    MANDATORY = "mandatory"
    """Join the context that is there, else ``TransactionRequiredError``."""


class Decision(Enum):
    """What the boundary is to do."""

    JOIN = "join"
    OPEN = "open"
    REFUSE = "refuse"


_TABLE = {
    (Propagation.REQUIRED, True): Decision.JOIN,
    (Propagation.REQUIRED, False): Decision.OPEN,
    (Propagation.REQUIRES_NEW, True): Decision.OPEN,
    (Propagation.REQUIRES_NEW, False): Decision.OPEN,
    (Propagation.MANDATORY, True): Decision.JOIN,
    (Propagation.MANDATORY, False): Decision.REFUSE,
}


def decide(propagation: Propagation, *, context_is_open: bool) -> Decision:
    """Look up what ``propagation`` asks for."""
    return _TABLE[propagation, context_is_open]
