"""A client of the web fronts: FastAPI and Litestar as ASGI applications, aiohttp on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from aiohttp.test_utils import TestServer

from samples.ledger.fronts import aiohttp_app, fastapi_app, litestar_app
from tests.samples.fronts.client import Answer, Client, Outcome, Report

PATIENCE_S = 60
"""As long as a unit may wait for SQLite's one writer."""


class OverHttp(Client):
    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def submit(self, key: str, source: str, target: str, cents: object) -> Answer:
        body = {"key": key, "source": source, "target": target, "amount_cents": cents}
        response = await self.http.post("/transfers", json=body)
        if response.status_code == 200:
            assert response.json() == {"key": key, "status": "posted before"}
            return Answer(Outcome.BEFORE)
        if response.status_code == 201:
            assert response.json() == {"key": key, "status": "posted"}
            return Answer(Outcome.DONE)
        return refused(response)

    async def open_account(self, name: str) -> Answer:
        response = await self.http.post("/accounts", json={"name": name})
        if response.status_code == 409:
            return Answer(Outcome.BEFORE)
        return Answer(Outcome.DONE) if response.status_code == 201 else refused(response)

    async def balance(self, name: str) -> int | None:
        response = await self.http.get(f"/accounts/{name}")
        if response.status_code == 404:
            return None
        found = response.json()
        assert found["name"] == name
        cents = found["balance_cents"]
        assert isinstance(cents, int)
        return cents

    async def report(self) -> Report:
        return Report(**(await self.http.get("/report")).json())


def refused(response: httpx.Response) -> Answer:
    assert 400 <= response.status_code < 500, response.text
    return Answer(Outcome.REFUSED, str(response.json()["detail"]))


@asynccontextmanager
async def over_fastapi(url: str) -> AsyncIterator[OverHttp]:
    app = fastapi_app.create_app(url)
    async with app.router.lifespan_context(app), _asgi(app) as http:
        yield OverHttp(http)


@asynccontextmanager
async def over_litestar(url: str) -> AsyncIterator[OverHttp]:
    app = litestar_app.create_app(url)
    async with app.lifespan(), _asgi(app) as http:
        yield OverHttp(http)


@asynccontextmanager
async def over_aiohttp(url: str) -> AsyncIterator[OverHttp]:
    app = aiohttp_app.create_app(url=url)
    async with (
        TestServer(app) as server,
        httpx.AsyncClient(base_url=str(server.make_url("/")), timeout=PATIENCE_S) as http,
    ):
        yield OverHttp(http)


def _asgi(app: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://ledger")


WEB = {"fastapi": over_fastapi, "litestar": over_litestar, "aiohttp": over_aiohttp}
