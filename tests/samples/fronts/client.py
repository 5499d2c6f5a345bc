"""What a user can ask of the ledger, whichever front is asked."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Outcome(enum.Enum):
    DONE = "done, now"
    BEFORE = "it was done before"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the front said."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    balances: dict[str, int]
    transfers: int
    books_balance: bool


class Client(ABC):
    """One front as its user sees it."""

    @abstractmethod
    async def submit(self, key: str, source: str, target: str, cents: object) -> Answer: ...

    @abstractmethod
    async def open_account(self, name: str) -> Answer: ...

    @abstractmethod
    async def balance(self, name: str) -> int | None: ...

    @abstractmethod
    async def report(self) -> Report: ...
