"""The options of a boundary, checked once when decorating.

An option is honoured or refused, never ignored: whatever can't mean anything
is a ``TypeError`` or ``ValueError`` here, before the function ever runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from txkit.policy.propagation import Propagation

OutcomeRule: TypeAlias = Callable[[Any, BaseException | None], bool]
ExceptionClasses: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """What a decorator or block was told, in checked form."""

    propagation: Propagation = Propagation.REQUIRED
    rollback_for: tuple[type[BaseException], ...] = ()
    no_rollback_for: tuple[type[BaseException], ...] = ()
    outcome: OutcomeRule | None = None
    name: str | None = None


OPTIONS = tuple(field.name for field in fields(Definition))
"""The names that ``define`` takes."""


def define(
    *,
    propagation: str = Propagation.REQUIRED,
    rollback_for: ExceptionClasses = (),
    no_rollback_for: ExceptionClasses = (),
    outcome: OutcomeRule | None = None,
    name: str | None = None,
) -> Definition:
    """Check the options and put them in order.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an unknown or senseless value.
    """
    rollback = _classes("rollback_for", rollback_for)
    no_rollback = _classes("no_rollback_for", no_rollback_for)
    for cls in no_rollback:
        if not may_commit(cls):
            message = (
                f"no_rollback_for={cls.__name__} can't be honoured: cancellation and its like"
                " always roll back; name Exception or a class below it"
            )
            raise ValueError(message)
    both = [cls.__name__ for cls in no_rollback if cls in rollback]
    if both:
        message = f"{', '.join(both)} can't be in both rollback_for and no_rollback_for"
        raise ValueError(message)
    rule: Any = outcome
    if rule is not None and (not callable(rule) or inspect.iscoroutinefunction(rule)):
        message = "outcome must be a plain function: outcome(result, error) -> bool"
        raise TypeError(message)
    if outcome is not None and (rollback or no_rollback):
        message = "outcome= replaces the exception rules: give it or (no_)rollback_for, not both"
        raise ValueError(message)
    label: Any = name
    if label is not None and not isinstance(label, str):
        message = f"name must be a text, not {label!r}"
        raise TypeError(message)
    if label == "":
        message = "name must not be empty"
        raise ValueError(message)
    return Definition(_propagation(propagation), rollback, no_rollback, outcome, name)


def may_commit(cls: type[BaseException]) -> bool:
    """Whether an exception of this class can ever lead to a commit."""
    return issubclass(cls, (Exception, SystemExit))


def _propagation(value: str) -> Propagation:
    try:
        return Propagation(value)
    except ValueError:
        choices = ", ".join(repr(str(known)) for known in Propagation)
        message = f"propagation={value!r} is unknown: give one of {choices}"
        raise ValueError(message) from None


def _classes(option: str, value: ExceptionClasses) -> tuple[type[BaseException], ...]:
    given: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    for cls in given:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            message = f"{option} takes an exception class or a tuple of them, not {cls!r}"
            raise TypeError(message)
    return given
