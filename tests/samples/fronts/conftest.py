"""Every front of the ledger, on either database; at the end of each test the books balance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.samples.conftest import Place
from tests.samples.fronts.client import Client
from tests.samples.fronts.over_cli import over_cli
from tests.samples.fronts.over_http import WEB, OverHttp
from tests.samples.fronts.over_queue import over_queue, redis_server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture(params=[*WEB, "worker", "cli"])
async def client(
    request: pytest.FixtureRequest, place: Place, redis_url: str, tmp_path: Path
) -> AsyncIterator[Client]:
    """The ledger behind each of its fronts."""
    front: AbstractAsyncContextManager[Client]
    if request.param == "worker":
        front = over_queue(place.url, redis_url)
    elif request.param == "cli":
        front = over_cli(place.url, tmp_path)
    else:
        front = WEB[request.param](place.url)
    async with front as one:
        yield one
    await place.books_balance()


@pytest.fixture(params=WEB)
async def web(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[OverHttp]:
    """The ledger behind each web framework."""
    async with WEB[request.param](place.url) as one:
        yield one
    await place.books_balance()
