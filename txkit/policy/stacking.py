"""Which of our decorators say nothing above one another.

``@transactional`` above ``@transactional`` opens what the one below only joins: one of
them has no effect, and who reads the code believes otherwise. Where the propagation makes
a difference (``mandatory`` above ``requires_new``), both have their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

from txkit.policy.propagation import Propagation

_OPENS = {Propagation.REQUIRED, Propagation.REQUIRES_NEW}


@dataclass(frozen=True, slots=True)
class Applied:
    """A decorator as it was put on a function. ``propagation`` is None for ``@atomic``."""

    decorator: str
    propagation: Propagation | None = None
    databases: frozenset[object] = frozenset()


def is_in_vain(upper: Applied, lower: Applied) -> bool:
    """Whether one of two decorators on the same function has no effect."""
    if upper.propagation is None or lower.propagation is None:
        both_atomic = upper.propagation is lower.propagation
        return both_atomic and _overlap(upper.databases, lower.databases)
    return (
        upper.propagation is lower.propagation or {upper.propagation, lower.propagation} <= _OPENS
    )


def _overlap(some: frozenset[object], others: frozenset[object]) -> bool:
    """Whether they cover a Database both; an ``@atomic`` without any covers all."""
    return not some or not others or bool(some & others)
