"""The same services behind FastAPI: statuses, and requests at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from samples.ledger.web import create_app
from tests.conftest import PostgresJudge
from tests.samples.conftest import Place


@pytest.fixture
async def client(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(place.url)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://ledger") as one,
    ):
        yield one


def order(key: str, source: str, target: str, cents: object) -> dict[str, object]:
    return {"key": key, "source": source, "target": target, "amount_cents": cents}


async def post(client: httpx.AsyncClient, *values: object) -> int:
    key, source, target, cents = values
    body = order(str(key), str(source), str(target), cents)
    return (await client.post("/transfers", json=body)).status_code


async def test_transfer_is_committed_before_its_answer(
    client: httpx.AsyncClient, place: Place
) -> None:
    response = await client.post("/transfers", json=order("a", "external", "alice", 500))
    assert (response.status_code, response.json()) == (201, {"key": "a", "status": "posted"})
    assert await place.rows("SELECT key, amount_cents FROM transfer") == [("a", 500)]
    assert (await client.get("/accounts/alice")).json() == {"name": "alice", "balance_cents": 500}


async def test_statuses_tell_what_became_of_an_order(
    client: httpx.AsyncClient, place: Place
) -> None:
    assert await post(client, "a", "external", "alice", 500) == 201
    assert await post(client, "a", "external", "alice", 500) == 200
    assert await post(client, "a", "external", "alice", 501) == 409
    assert await post(client, "b", "alice", "bob", 501) == 422
    assert await post(client, "c", "alice", "dave", 1) == 422
    assert await post(client, "d", "alice", "alice", 1) == 422
    assert await post(client, "e", "alice", "bob", 0) == 422
    assert await post(client, "f", "alice", "bob", 1.5) == 422
    assert await post(client, "g", "alice", "bob", 10**30) == 422
    assert await place.rows("SELECT key FROM transfer") == [("a",)]
    trail = await place.rows("SELECT key, outcome FROM attempt ORDER BY id")
    assert trail == [
        ("a", "posted"),
        ("a", "already posted"),
        ("a", "refused"),
        ("b", "refused"),
        ("c", "refused"),
    ]


async def test_account_is_opened_once(client: httpx.AsyncClient, place: Place) -> None:
    assert (await client.post("/accounts", json={"name": "dave"})).status_code == 201
    assert (await client.post("/accounts", json={"name": "dave"})).status_code == 409
    assert (await client.get("/accounts/dave")).json()["balance_cents"] == 0
    assert (await client.get("/accounts/erin")).status_code == 404
    assert (await client.post("/accounts", json={"name": "d" * 65})).status_code == 422
    assert (await client.post("/accounts", json={"name": " "})).status_code == 422
    assert await place.rows("SELECT count(*) FROM account WHERE name = 'dave'") == [(1,)]


async def test_account_asked_for_twice_at_once_is_opened_once(client: httpx.AsyncClient) -> None:
    twice = [client.post("/accounts", json={"name": "dave"}) for _ in range(2)]
    answers = await asyncio.gather(*twice)
    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_of_two_transfers_at_once_only_the_covered_one_succeeds(
    client: httpx.AsyncClient, place: Place
) -> None:
    await post(client, "a", "external", "alice", 100)
    statuses = await asyncio.gather(
        post(client, "b", "alice", "bob", 80), post(client, "c", "alice", "carol", 80)
    )
    assert sorted(statuses) == [201, 422]
    assert await place.rows("SELECT balance_cents FROM account WHERE name = 'alice'") == [(20,)]
    trail = await place.rows("SELECT outcome FROM attempt WHERE key <> 'a' ORDER BY outcome")
    assert trail == [("posted",), ("refused",)]
    report = (await client.get("/report")).json()
    assert report["books_balance"] is True
    assert report["transfers"] == 2


async def test_same_order_twice_at_once_is_posted_once(
    client: httpx.AsyncClient, place: Place
) -> None:
    twice = [post(client, "a", "external", "alice", 100) for _ in range(2)]
    assert sorted(await asyncio.gather(*twice)) == [200, 201]
    assert await place.rows("SELECT count(*) FROM posting") == [(2,)]


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_key_taken_by_a_transfer_that_commits_meanwhile_is_a_conflict(
    client: httpx.AsyncClient, pg: PostgresJudge
) -> None:
    """The one race that the account locks don't cover.

    Scenario: another connection has inserted the key, for other accounts, and not committed.
        The request waits at its INSERT; then the other one commits.
    Outcome: 409, the refusal is recorded, nothing was posted.
    """
    async with pg.connection.transaction():
        await pg.connection.execute(
            "INSERT INTO transfer VALUES ('a', 'carol', 'shop', 1, '', now())"
        )
        request = asyncio.create_task(post(client, "a", "external", "alice", 100))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while await pg.connection.fetchval(waiting) == 0:
            assert not request.done()
            await pg.connection.execute("SELECT pg_stat_clear_snapshot()")
    assert await request == 409
    assert [row["key"] for row in await pg.fetch("SELECT key FROM transfer")] == ["a"]
    assert len(await pg.fetch("SELECT 1 FROM attempt WHERE outcome = 'refused'")) == 1
    assert await pg.fetch("SELECT 1 FROM posting") == []
