"""What only HTTP has: a status tells what became of a request, the same behind every framework."""

from __future__ import annotations

import pytest

from tests.samples.conftest import Place
from tests.samples.fronts.over_http import OverHttp

TRAIL = "SELECT key, outcome FROM attempt ORDER BY id"


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_statuses_tell_what_became_of_an_order(web: OverHttp, place: Place) -> None:
    async def post(key: str, source: str, target: str, cents: object) -> int:
        body = {"key": key, "source": source, "target": target, "amount_cents": cents}
        return (await web.http.post("/transfers", json=body)).status_code

    assert await post("a", "external", "alice", 500) == 201
    assert await post("a", "external", "alice", 500) == 200
    assert await post("a", "external", "alice", 501) == 409
    assert await post("b", "alice", "bob", 501) == 422
    assert await post("c", "alice", "dave", 1) == 422
    assert await post("d", "alice", "alice", 1) == 422
    assert await post("e", "alice", "bob", 1.5) == 422
    assert (await web.http.post("/transfers", content=b"no JSON")).status_code in {400, 422}
    assert await place.rows("SELECT key FROM transfer") == [("a",)]
    assert await place.rows(TRAIL) == [
        ("a", "posted"),
        ("a", "already posted"),
        ("a", "refused"),
        ("b", "refused"),
        ("c", "refused"),
    ]


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_statuses_tell_what_became_of_an_account(web: OverHttp) -> None:
    async def opened(name: object) -> int:
        return (await web.http.post("/accounts", json={"name": name})).status_code

    assert [await opened(name) for name in ("dave", "dave", "d" * 65, 5)] == [201, 409, 422, 422]
    assert (await web.http.get("/accounts/dave")).status_code == 200
    missing = await web.http.get("/accounts/erin")
    assert (missing.status_code, missing.json()["detail"]) == (404, "there is no account 'erin'")
