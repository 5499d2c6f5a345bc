"""The options of a boundary, checked once when decorating.

An option is honoured or refused, never ignored: whatever can't mean anything
is a ``TypeError`` or ``ValueError`` here, before the function ever runs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from txkit.policy.characteristics import PLAIN, Characteristics, characteristics
from txkit.policy.propagation import Propagation

OutcomeRule: TypeAlias = Callable[[Any, BaseException | None], bool]
ExceptionClasses: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """What a decorator or block was told, in checked form."""

    propagation: Propagation = Propagation.REQUIRED
    characteristics: Characteristics = PLAIN
    timeout_s: float | None = None
    rollback_for: tuple[type[BaseException], ...] = ()
    no_rollback_for: tuple[type[BaseException], ...] = ()
    outcome: OutcomeRule | None = None
    name: str | None = None


def define(
    *,
    propagation: str = Propagation.REQUIRED,
    isolation: str | None = None,
    read_only: bool | None = None,
    deferrable: bool = False,
    timeout_s: float | None = None,
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
    how = _propagation(propagation)
    asked = characteristics(isolation, read_only, deferrable)
    _check_timeout(timeout_s)
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
    _refuse_without_transaction(
        how,
        {
            "isolation": isolation is not None,
            "read_only": bool(read_only),
            "timeout_s": timeout_s is not None,
        },
        {"rollback_for": rollback, "no_rollback_for": no_rollback, "outcome": outcome},
    )
    return Definition(how, asked, timeout_s, rollback, no_rollback, outcome, name)


OPTIONS = tuple(inspect.signature(define).parameters)
"""The names that ``define`` takes."""


def may_commit(cls: type[BaseException]) -> bool:
    """Whether an exception of this class can ever lead to a commit."""
    return issubclass(cls, (Exception, SystemExit))


def _refuse_without_transaction(
    how: Propagation, of_transaction: dict[str, bool], of_end: dict[str, object]
) -> None:
    """Refuse what nothing could honour where no transaction is."""
    senseless = [option for option, is_given in of_transaction.items() if is_given]
    if not how.may_join:
        senseless += [option for option, value in of_end.items() if value]
    if how.may_autocommit and senseless:
        message = (
            f"{', '.join(senseless)} can't be honoured with propagation={str(how)!r}: it may run"
            " in autocommit, where each statement is durable at once and no transaction is there"
            " to be limited or rolled back"
        )
        raise ValueError(message)


def _check_timeout(timeout_s: Any) -> None:
    if timeout_s is None:
        return
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        message = f"timeout_s is a number of seconds, not {timeout_s!r}"
        raise TypeError(message)
    if not 0 < timeout_s < math.inf:
        message = f"timeout_s must be more than 0 seconds and finite, not {timeout_s!r}"
        raise ValueError(message)


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
