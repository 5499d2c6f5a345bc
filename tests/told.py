"""Hooks that write down that they ran: a list of one line each, in the order in which they ran."""

from __future__ import annotations

from txkit import after_commit, after_completion, after_rollback, before_commit


def watch(told: list[str], name: str) -> None:
    """Register one hook of each kind."""
    before_commit(lambda: told.append(f"{name}: before"))
    after_commit(lambda: told.append(f"{name}: after commit"))
    after_rollback(lambda: told.append(f"{name}: after rollback"))
    after_completion(lambda outcome: told.append(f"{name}: {outcome}"))


def committed(*names: str) -> list[str]:
    """What the hooks of units say that committed together."""
    after = [line for one in names for line in (f"{one}: after commit", f"{one}: committed")]
    return [*(f"{one}: before" for one in names), *after]


def rolled_back(*names: str) -> list[str]:
    """What they say after a rollback."""
    return [line for one in names for line in (f"{one}: after rollback", f"{one}: rolled_back")]


def unknown(*names: str) -> list[str]:
    """What they say where nobody can tell."""
    return [f"{one}: unknown" for one in names]
