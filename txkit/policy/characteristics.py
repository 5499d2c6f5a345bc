"""The characteristics of a transaction: isolation, read-only, deferrable, or none at all.

SQL's word for what a BEGIN declares. Checked when decorating; a joined call's
are compared with those of the boundary, which it must not contradict.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple


class Isolation(StrEnum):
    """SQL's isolation levels; PostgreSQL treats the first as the second."""

    READ_UNCOMMITTED = "READ UNCOMMITTED"
    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


@dataclass(frozen=True, slots=True)
class Characteristics:
    """What a boundary declared for its transactions; None: nothing."""

    isolation: Isolation | None = None
    read_only: bool | None = None
    deferrable: bool = False
    autocommit: bool = False


PLAIN = Characteristics()
AUTOCOMMIT = Characteristics(autocommit=True)


class Conflict(NamedTuple):
    """An option of a joined call that the boundary can't honour."""

    option: str
    asked: object
    found: object


def characteristics(isolation: Any, read_only: Any, deferrable: Any) -> Characteristics:
    """Check the options and put them in order.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an unknown or senseless value.
    """
    if read_only is not None and not isinstance(read_only, bool):
        message = f"read_only is True, False or left out, not {read_only!r}"
        raise TypeError(message)
    if not isinstance(deferrable, bool):
        message = f"deferrable is True or False, not {deferrable!r}"
        raise TypeError(message)
    level = None if isolation is None else _level(isolation)
    if deferrable and not (level is Isolation.SERIALIZABLE and read_only):
        message = (
            "deferrable=True means something only with isolation='SERIALIZABLE', read_only=True"
        )
        raise ValueError(message)
    if level is None and read_only is None:
        return PLAIN
    return Characteristics(level, read_only, deferrable)


def conflict(asked: Characteristics, boundary: Characteristics) -> Conflict | None:
    """Find what a joined call asks for and the boundary declared otherwise.

    Left out joins anything; read-only joins read-write, and is then not enforced.
    Where the boundary declared no level, ``level_conflict`` judges the engine's.
    """
    if asked.isolation is not None and boundary.isolation is not None:
        found = level_conflict(asked, boundary.isolation)
        if found is not None:
            return found
    if asked.read_only is False and boundary.read_only:
        return Conflict("read_only", asked=False, found=True)
    if asked.deferrable and not boundary.deferrable:
        return Conflict("deferrable", asked=True, found=False)
    return None


def level_conflict(asked: Characteristics, level: str) -> Conflict | None:
    """Compare the isolation level that is asked for with the one that is there."""
    if asked.isolation is None or asked.isolation == level:
        return None
    return Conflict("isolation", str(asked.isolation), str(level))


def is_above(level: Isolation, default: str | None) -> bool:
    """Whether a level guarantees more than the default one."""
    order = [str(known) for known in Isolation]
    return default not in order or order.index(level) > order.index(default)


def _level(value: Any) -> Isolation:
    if not isinstance(value, str):
        message = f"isolation is a text like 'SERIALIZABLE', not {value!r}"
        raise TypeError(message)
    name = " ".join(value.replace("_", " ").upper().split())
    if name == "AUTOCOMMIT":
        message = (
            "isolation='AUTOCOMMIT' would be no transaction at all: for statements that are durable"
            " at once use propagation='not_supported'"
        )
        raise ValueError(message)
    try:
        return Isolation(name)
    except ValueError:
        choices = ", ".join(repr(str(known)) for known in Isolation)
        message = f"isolation={value!r} is unknown: give one of {choices}"
        raise ValueError(message) from None
