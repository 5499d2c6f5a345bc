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
    NESTED = "nested"
    """Be a savepoint of every open transaction, else open a context."""
    MANDATORY = "mandatory"
    """Join the context that is there, else ``TransactionRequiredError``."""
    SUPPORTS = "supports"
    """Join the context that is there, else run in autocommit."""
    NOT_SUPPORTED = "not_supported"
    """Set the context aside and run in autocommit, on another connection."""
    NEVER = "never"
    """Run in autocommit; ``TransactionNotAllowedError`` where a context is there."""

    @property
    def may_join(self) -> bool:
        """Whether it can become a part of a transaction that was there."""
        return _TABLE[self, Surroundings.TRANSACTION] in INSIDE

    @property
    def may_autocommit(self) -> bool:
        """Whether it can run without a transaction."""
        return _TABLE[self, Surroundings.NONE] is Decision.AUTOCOMMIT


class Surroundings(Enum):
    """What a call meets. A context that has ended is none."""

    NONE = "no context"
    TRANSACTION = "a context with transactions"
    AUTOCOMMIT = "a context in autocommit"


class Decision(Enum):
    """What the boundary is to do."""

    JOIN = "join"
    OPEN = "open"
    SAVEPOINT = "set a savepoint on every open transaction"
    AUTOCOMMIT = "open, in autocommit"
    REFUSE_WITHOUT = "refuse: no context is there"
    REFUSE_WITHIN = "refuse: a context is there"


INSIDE = frozenset({Decision.JOIN, Decision.SAVEPOINT})
"""The decisions by which a call becomes a part of the context that is there."""

_COLUMNS = (Surroundings.TRANSACTION, Surroundings.NONE, Surroundings.AUTOCOMMIT)
_ROWS = {
    Propagation.REQUIRED: (Decision.JOIN, Decision.OPEN, Decision.OPEN),
    Propagation.REQUIRES_NEW: (Decision.OPEN, Decision.OPEN, Decision.OPEN),
    Propagation.NESTED: (Decision.SAVEPOINT, Decision.OPEN, Decision.OPEN),
    Propagation.MANDATORY: (Decision.JOIN, Decision.REFUSE_WITHOUT, Decision.REFUSE_WITHOUT),
    Propagation.SUPPORTS: (Decision.JOIN, Decision.AUTOCOMMIT, Decision.JOIN),
    Propagation.NOT_SUPPORTED: (Decision.AUTOCOMMIT, Decision.AUTOCOMMIT, Decision.JOIN),
    Propagation.NEVER: (Decision.REFUSE_WITHIN, Decision.AUTOCOMMIT, Decision.JOIN),
}
_TABLE = {
    (propagation, surroundings): decision
    for propagation, row in _ROWS.items()
    for surroundings, decision in zip(_COLUMNS, row, strict=True)
}


def decide(propagation: Propagation, surroundings: Surroundings) -> Decision:
    """Look up what ``propagation`` asks for."""
    return _TABLE[propagation, surroundings]
