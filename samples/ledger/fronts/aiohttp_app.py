"""The ledger behind aiohttp.

A handler is decorated below its route: it commits before its answer is sent, and
rolls back when a refusal leaves it or when its answer says 400 or more. aiohttp has
no exception handlers, so what becomes of a refusal stands between the two decorators,
above the handler's unit: there the audit trail gets a unit of its own.

Serve it with ``python -m aiohttp.web samples.ledger.fronts.aiohttp_app:create_app``.
"""

# pyright: reportUnusedFunction=false
from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from aiohttp import web

from samples.ledger.books import read_books
from samples.ledger.fronts import messages
from samples.ledger.fronts.messages import AccountIn, TransferIn
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from txkit import transactional


def create_app(_arguments: Sequence[str] = (), url: str | None = None) -> web.Application:
    """Make the application for the ledger at a URL, or at LEDGER_URL.

    Args:
        _arguments: of the command line, which ``aiohttp.web`` passes on.
        url: of the ledger's database.
    """
    ledger = messages.open_ledger(url)

    async def lifespan(_app: web.Application) -> AsyncGenerator[None]:
        async with ledger.database:
            await make_tables(ledger.database)
            yield

    app = web.Application()
    app.cleanup_ctx.append(lifespan)
    app.add_routes(_routes(ledger))
    return app


def _routes(ledger: Ledger) -> web.RouteTableDef:
    routes = web.RouteTableDef()
    answering_refusals = messages.answering_refusals(ledger, _answer)

    @routes.post("/transfers")
    @answering_refusals
    @transactional
    async def post_transfer(request: web.Request) -> web.StreamResponse:
        """Post a transfer: 201; 200 if it was posted before; 409 or 422 if it can't be."""
        body = TransferIn.model_validate_json(await request.read())
        receipt = await ledger.transfer(body.order())
        status = 200 if receipt.posted_before else 201
        return web.json_response(messages.posted(receipt), status=status)

    @routes.post("/accounts")
    @answering_refusals
    @transactional
    async def post_account(request: web.Request) -> web.StreamResponse:
        """Open an account: 201; 409 if it is open already, 422 if it can't have that name."""
        name = AccountIn.model_validate_json(await request.read()).name
        if not await ledger.open_account(name):
            return _problem(409, f"account {name!r} is open already")
        return web.json_response({"name": name}, status=201)

    @routes.get("/accounts/{name}")
    @transactional
    async def get_account(request: web.Request) -> web.StreamResponse:
        """Show an account's balance: 200, or 404."""
        name = request.match_info["name"]
        cents = await ledger.balance(name)
        if cents is None:
            return _problem(404, f"there is no account {name!r}")
        return web.json_response({"name": name, "balance_cents": cents})

    @routes.get("/report")
    @transactional
    async def get_report(_request: web.Request) -> web.StreamResponse:
        """Show the balances, and whether the books balance."""
        return web.json_response(messages.report(await read_books(ledger.database)))

    return routes


def _answer(error: Exception) -> web.StreamResponse:
    body, status = messages.refused(error)
    return web.json_response(body, status=status)


def _problem(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=status)
