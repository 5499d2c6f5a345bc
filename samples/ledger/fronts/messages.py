"""What every front takes in and gives out as JSON, and how it answers a refusal.

Knows the ledger and no framework.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, StrictInt, ValidationError

from samples.ledger.books import Books
from samples.ledger.database import DEFAULT_URL, URL_VARIABLE, open_database
from samples.ledger.orders import KeyTakenError, MalformedError, Order, RefusedError
from samples.ledger.services import Ledger, Receipt

P = ParamSpec("P")
R = TypeVar("R")

NOT_DONE = (RefusedError, MalformedError, ValidationError)
"""What leaves a handler when it can't do what it was asked for."""


class TransferIn(BaseModel):
    """What a client sends."""

    key: str
    source: str
    target: str
    amount_cents: StrictInt
    text: str = ""

    def order(self) -> Order:
        """Make the order; MalformedError if the values can't be one's."""
        return Order(**self.model_dump())


class AccountIn(BaseModel):
    """A new account."""

    name: str


def open_ledger(url: str | None = None) -> Ledger:
    """Make the ledger at a URL, or at LEDGER_URL; nothing connects yet."""
    return Ledger(open_database(url or os.environ.get(URL_VARIABLE, DEFAULT_URL)))


def posted(receipt: Receipt) -> dict[str, str]:
    """Tell that an order is posted, and whether it was before."""
    return {"key": receipt.key, "status": "posted before" if receipt.posted_before else "posted"}


def report(books: Books) -> dict[str, object]:
    """Tell the balances, and whether the books balance."""
    return {
        "balances": books.balances,
        "transfers": books.transfers,
        "books_balance": books.balance,
    }


def refused(error: Exception) -> tuple[dict[str, str], int]:
    """Tell why a request can't be met, and with which HTTP status."""
    taken = isinstance(error, KeyTakenError)
    status = HTTPStatus.CONFLICT if taken else HTTPStatus.UNPROCESSABLE_ENTITY
    return {"detail": _reason(error)}, status


def answering_refusals(
    ledger: Ledger, answer: Callable[[Exception], R]
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Make refusals answers, for a framework that has no exception handlers.

    Stands above ``@transactional``: the handler's unit has been rolled back when a refused order
    is recorded, by a unit of its own.
    """

    def decorate(handler: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        @functools.wraps(handler)
        async def answering(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await handler(*args, **kwargs)
            except NOT_DONE as error:
                refusal = error
            if isinstance(refusal, RefusedError):
                await ledger.record_refusal(refusal)
            return answer(refusal)

        return answering

    return decorate


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        each = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
        return "; ".join(f"{where}: {what}" if where else what for where, what in each)
    return str(error)
