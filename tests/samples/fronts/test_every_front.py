"""Whatever stands in front of it, the ledger does the same, as a second connection sees it."""

from __future__ import annotations

import asyncio

import pytest

from tests.samples.conftest import Place
from tests.samples.fronts.client import Answer, Client, Outcome

DONE, BEFORE = Answer(Outcome.DONE), Answer(Outcome.BEFORE)
TRAIL = "SELECT key, outcome FROM attempt ORDER BY id"


async def test_order_is_posted_and_committed_before_its_answer(
    client: Client, place: Place
) -> None:
    assert await client.submit("a", "external", "alice", 500) == DONE
    assert await place.rows("SELECT account, amount_cents FROM posting ORDER BY account") == [
        ("alice", 500),
        ("external", -500),
    ]
    assert await place.rows(TRAIL) == [("a", "posted")]
    assert await client.balance("alice") == 500


async def test_same_order_again_is_answered_so_and_posted_once(
    client: Client, place: Place
) -> None:
    assert await client.submit("a", "external", "alice", 500) == DONE
    assert await client.submit("a", "external", "alice", 500) == BEFORE
    assert await place.rows("SELECT count(*) FROM posting") == [(2,)]
    assert await place.rows(TRAIL) == [("a", "posted"), ("a", "already posted")]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (("a", "external", "alice", 501), "key 'a' was used for another transfer"),
        (("b", "alice", "bob", 501), "'alice' has 5.00, 5.01 was asked for"),
        (("b", "alice", "dave", 1), "there is no account 'dave'"),
        (("b", "dave", "alice", 1), "there is no account 'dave'"),
    ],
    ids=["key taken", "overdrawn", "no target", "no source"],
)
async def test_refused_order_moves_nothing_and_is_recorded(
    order: tuple[str, str, str, int], reason: str, client: Client, place: Place
) -> None:
    await client.submit("a", "external", "alice", 500)
    assert await client.submit(*order) == Answer(Outcome.REFUSED, reason)
    assert await place.rows("SELECT key, amount_cents FROM transfer") == [("a", 500)]
    assert await place.rows(TRAIL) == [("a", "posted"), (order[0], "refused")]
    assert await place.rows("SELECT reason FROM attempt ORDER BY id") == [("",), (reason,)]
    assert await client.submit("c", "alice", "bob", 500) == DONE


async def test_malformed_order_is_refused_and_no_attempt(client: Client, place: Place) -> None:
    same = await client.submit("a", "alice", "alice", 1)
    assert same.outcome is Outcome.REFUSED
    assert "source and target are the same account" in same.reason
    for key, cents in (("a", 0), ("a", 1.5), ("a", "ten"), ("a", 10**30), (" ", 1), ("k" * 65, 1)):
        answer = await client.submit(key, "external", "alice", cents)
        assert (answer.outcome, bool(answer.reason)) == (Outcome.REFUSED, True), (key, cents)
    assert await client.submit("b", "external", "alice", 1) == DONE
    assert await place.rows(TRAIL) == [("b", "posted")]


async def test_account_is_opened_once(client: Client, place: Place) -> None:
    assert await client.open_account("dave") == DONE
    assert await place.rows("SELECT balance_cents FROM account WHERE name = 'dave'") == [(0,)]
    assert await client.open_account("dave") == BEFORE
    assert await client.balance("dave") == 0
    assert await client.balance("erin") is None
    assert await client.open_account(" ") == Answer(Outcome.REFUSED, "name is missing")
    assert await place.rows("SELECT count(*) FROM account") == [(6,)]


async def test_account_asked_for_twice_at_once_is_opened_once(client: Client) -> None:
    answers = await asyncio.gather(*(client.open_account("dave") for _ in range(2)))
    assert sorted(answer.outcome.name for answer in answers) == ["BEFORE", "DONE"]


async def test_same_order_twice_at_once_is_posted_once(client: Client, place: Place) -> None:
    twice = [client.submit("a", "external", "alice", 100) for _ in range(2)]
    answers = await asyncio.gather(*twice)
    assert sorted(answer.outcome.name for answer in answers) == ["BEFORE", "DONE"]
    assert await place.rows("SELECT count(*) FROM posting") == [(2,)]


async def test_of_two_orders_at_once_only_the_covered_one_is_posted(
    client: Client, place: Place
) -> None:
    await client.submit("a", "external", "alice", 100)
    answers = await asyncio.gather(
        client.submit("b", "alice", "bob", 80), client.submit("c", "alice", "carol", 80)
    )
    assert sorted(answer.outcome.name for answer in answers) == ["DONE", "REFUSED"]
    assert await place.rows("SELECT balance_cents FROM account WHERE name = 'alice'") == [(20,)]
    trail = await place.rows("SELECT outcome FROM attempt WHERE key <> 'a' ORDER BY outcome")
    assert trail == [("posted",), ("refused",)]


async def test_transfers_there_and_back_at_once_are_all_posted(
    client: Client, place: Place
) -> None:
    await client.submit("a", "external", "alice", 1000)
    await client.submit("b", "external", "bob", 1000)
    there = [client.submit(f"there{n}", "alice", "bob", 10 + n) for n in range(10)]
    back = [client.submit(f"back{n}", "bob", "alice", 10) for n in range(10)]
    assert await asyncio.gather(*there, *back) == [DONE] * 20
    assert await place.rows("SELECT count(*) FROM transfer") == [(22,)]
    report = await client.report()
    assert report.books_balance
    assert report.transfers == 22
    assert report.balances == {
        "alice": 955,
        "bob": 1045,
        "carol": 0,
        "external": -2000,
        "shop": 0,
    }


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_key_taken_by_a_transfer_that_commits_meanwhile_is_refused(
    client: Client, place: Place
) -> None:
    """The one race that the account locks don't cover.

    Scenario: another connection has posted a transfer with that key, between other accounts,
        and not committed. The order waits at its INSERT; then the other one commits.
    Outcome: refused and recorded, nothing was posted.
    """
    assert await client.submit("before", "external", "carol", 1) == DONE
    assert place.judge is not None
    async with place.judge.connection.transaction():
        await place.judge.connection.execute(
            """
            INSERT INTO transfer VALUES ('a', 'carol', 'shop', 1, '', now());
            INSERT INTO posting (transfer_key, account, amount_cents)
                VALUES ('a', 'carol', -1), ('a', 'shop', 1);
            UPDATE account SET balance_cents = 0 WHERE name = 'carol';
            UPDATE account SET balance_cents = 1 WHERE name = 'shop';
            """
        )
        order = asyncio.create_task(client.submit("a", "external", "alice", 100))
        await place.somebody_waits_for_a_lock(order)
    assert await order == Answer(Outcome.REFUSED, "key 'a' was used for another transfer")
    assert await place.rows("SELECT count(*) FROM posting") == [(4,)]
    assert await place.rows(TRAIL) == [("before", "posted"), ("a", "refused")]
