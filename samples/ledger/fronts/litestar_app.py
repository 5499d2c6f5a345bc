"""The ledger behind Litestar.

A handler is decorated directly below its route: it commits before its answer is
sent, and rolls back when a refusal or an HTTP exception leaves it. Refusals are
recorded in an ``after_exception`` hook, which Litestar runs after the handler and so
outside its unit: there the audit trail gets a unit of its own. Then an exception
handler (which may not be asynchronous here) makes them answers.

Serve it with ``uvicorn --factory samples.ledger.fronts.litestar_app:create_app``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from litestar.params import FromPath, JSONBody
from litestar.types import ControllerRouterHandler, Scope

from samples.ledger.books import read_books
from samples.ledger.fronts import messages
from samples.ledger.fronts.messages import AccountIn, TransferIn
from samples.ledger.orders import MalformedError, RefusedError
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from txkit import transactional


def create_app(url: str | None = None) -> Litestar:
    """Make the application for the ledger at a URL, or at LEDGER_URL."""
    ledger = messages.open_ledger(url)

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncGenerator[None]:
        async with ledger.database:
            await make_tables(ledger.database)
            yield

    async def record(error: Exception, _scope: Scope) -> None:
        if isinstance(error, RefusedError):
            await ledger.record_refusal(error)  # the handler's unit has been rolled back by now

    return Litestar(
        _routes(ledger),
        lifespan=[lifespan],
        after_exception=[record],
        exception_handlers={
            RefusedError: _answer,
            MalformedError: _answer,
            ValidationException: _complain,
        },
    )


def _answer(_request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, str]]:
    body, status = messages.refused(error)
    return Response(body, status_code=status)


def _complain(_request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    return Response({"detail": error.extra}, status_code=422)  # 400 unless told


def _routes(ledger: Ledger) -> Sequence[ControllerRouterHandler]:
    @post("/transfers")
    @transactional
    async def post_transfer(data: JSONBody[TransferIn]) -> Response[dict[str, str]]:
        """Post a transfer: 201; 200 if it was posted before; 409 or 422 if it can't be."""
        receipt = await ledger.transfer(data.order())
        status = 200 if receipt.posted_before else 201
        return Response(messages.posted(receipt), status_code=status)

    @post("/accounts")
    @transactional
    async def post_account(data: JSONBody[AccountIn]) -> dict[str, str]:
        """Open an account: 201; 409 if it is open already, 422 if it can't have that name."""
        if not await ledger.open_account(data.name):
            raise HTTPException(f"account {data.name!r} is open already", status_code=409)
        return {"name": data.name}

    @get("/accounts/{name:str}")
    @transactional
    async def get_account(name: FromPath[str]) -> dict[str, str | int]:
        """Show an account's balance: 200, or 404."""
        cents = await ledger.balance(name)
        if cents is None:
            raise NotFoundException(f"there is no account {name!r}")
        return {"name": name, "balance_cents": cents}

    @get("/report")
    @transactional
    async def get_report() -> dict[str, object]:
        """Show the balances, and whether the books balance."""
        return messages.report(await read_books(ledger.database))

    return [post_transfer, post_account, get_account, get_report]
