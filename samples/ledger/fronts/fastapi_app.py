"""The ledger behind FastAPI.

A handler is decorated directly below its route: it commits before its answer is
sent, and rolls back when a refusal or an HTTP exception leaves it. Refusals
become answers in an exception handler, which FastAPI runs after the handler and so
outside its unit: there the audit trail gets a unit of its own.

Serve it with ``uvicorn --factory samples.ledger.fronts.fastapi_app:create_app``.
"""

# pyright: reportUnusedFunction=false
from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from samples.ledger.books import read_books
from samples.ledger.fronts import messages
from samples.ledger.fronts.messages import AccountIn, TransferIn
from samples.ledger.orders import MalformedError, RefusedError
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from txkit import transactional


def create_app(url: str | None = None) -> FastAPI:
    """Make the application for the ledger at a URL, or at LEDGER_URL."""
    ledger = messages.open_ledger(url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with ledger.database:
            await make_tables(ledger.database)
            yield

    app = FastAPI(title="txkit ledger", lifespan=lifespan)
    app.include_router(_routes(ledger))

    @app.exception_handler(RefusedError)
    async def refuse(_request: Request, refusal: RefusedError) -> JSONResponse:
        await ledger.record_refusal(refusal)  # the handler's unit has been rolled back by now
        return JSONResponse(*messages.refused(refusal))

    @app.exception_handler(MalformedError)
    async def complain(_request: Request, error: MalformedError) -> JSONResponse:
        return JSONResponse(*messages.refused(error))

    return app


def _routes(ledger: Ledger) -> APIRouter:
    router = APIRouter()

    @router.post("/transfers", status_code=201)
    @transactional
    async def post_transfer(body: TransferIn, response: Response) -> dict[str, str]:
        """Post a transfer: 201; 200 if it was posted before; 409 or 422 if it can't be."""
        receipt = await ledger.transfer(body.order())
        if receipt.posted_before:
            response.status_code = 200
        return messages.posted(receipt)

    @router.post("/accounts", status_code=201)
    @transactional
    async def post_account(body: AccountIn) -> dict[str, str]:
        """Open an account: 201; 409 if it is open already, 422 if it can't have that name."""
        if not await ledger.open_account(body.name):
            raise HTTPException(409, f"account {body.name!r} is open already")
        return {"name": body.name}

    @router.get("/accounts/{name}")
    @transactional
    async def get_account(name: str) -> dict[str, str | int]:
        """Show an account's balance: 200, or 404."""
        cents = await ledger.balance(name)
        if cents is None:
            raise HTTPException(404, f"there is no account {name!r}")
        return {"name": name, "balance_cents": cents}

    @router.get("/report")
    @transactional
    async def get_report() -> dict[str, object]:
        """Show the balances, and whether the books balance."""
        return messages.report(await read_books(ledger.database))

    return router
