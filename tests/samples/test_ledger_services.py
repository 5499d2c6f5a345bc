"""The decorated services, called as any coroutine function, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from samples.ledger.books import read_books
from samples.ledger.orders import KeyTakenError, Order, OverdrawnError, UnknownAccountError
from samples.ledger.services import Ledger
from samples.ledger.tables import Account
from tests.samples.conftest import Place
from txkit import db_session, transactional

TRAIL = "SELECT key, outcome FROM attempt ORDER BY id"


async def test_posted_order_moves_money_and_is_recorded(ledger: Ledger, place: Place) -> None:
    receipt = await ledger.submit(Order("a", "external", "alice", 500))
    assert not receipt.posted_before
    assert await place.rows("SELECT account, amount_cents FROM posting ORDER BY account") == [
        ("alice", 500),
        ("external", -500),
    ]
    assert await place.rows(TRAIL) == [("a", "posted")]
    assert (await read_books(ledger.database)).balance


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (Order("b", "alice", "bob", 501), OverdrawnError),
        (Order("b", "alice", "dave", 1), UnknownAccountError),
        (Order("b", "dave", "alice", 1), UnknownAccountError),
        (Order("a", "external", "alice", 499), KeyTakenError),
    ],
)
async def test_refused_order_moves_nothing_and_its_attempt_is_kept(
    order: Order, error: type[Exception], ledger: Ledger, place: Place
) -> None:
    await ledger.submit(Order("a", "external", "alice", 500))
    with pytest.raises(error):
        await ledger.submit(order)
    assert await place.rows("SELECT key FROM transfer") == [("a",)]
    assert await place.rows(TRAIL) == [("a", "posted"), (order.key, "refused")]


async def test_same_order_again_is_acknowledged_and_posted_once(
    ledger: Ledger, place: Place
) -> None:
    order = Order("a", "external", "alice", 500, "text")
    await ledger.submit(order)
    assert (await ledger.submit(order)).posted_before
    assert await place.rows("SELECT count(*) FROM posting") == [(2,)]
    assert await place.rows(TRAIL) == [("a", "posted"), ("a", "already posted")]


async def test_services_called_by_a_decorated_function_are_one_unit(
    ledger: Ledger, place: Place
) -> None:
    @transactional
    async def two_transfers() -> None:
        await ledger.transfer(Order("a", "external", "alice", 500))
        await ledger.transfer(Order("b", "alice", "bob", 501))

    with pytest.raises(OverdrawnError):
        await two_transfers()
    assert await place.rows("SELECT count(*) FROM transfer") == [(0,)]
    assert await place.rows(TRAIL) == []


async def test_database_itself_refuses_an_overdrawn_account(ledger: Ledger, place: Place) -> None:
    @transactional
    async def careless() -> None:
        session = await db_session(ledger.database)
        await session.execute(
            update(Account).where(Account.name == "alice").values(balance_cents=-1)
        )

    with pytest.raises(IntegrityError, match="not_overdrawn"):
        await careless()
    assert await place.rows("SELECT balance_cents FROM account WHERE name = 'alice'") == [(0,)]


async def test_transfers_there_and_back_at_once_all_succeed(ledger: Ledger, place: Place) -> None:
    await ledger.submit(Order("a", "external", "alice", 1000))
    await ledger.submit(Order("b", "external", "bob", 1000))
    there = [Order(f"there{n}", "alice", "bob", 10) for n in range(10)]
    back = [Order(f"back{n}", "bob", "alice", 10) for n in range(10)]
    await asyncio.gather(*map(ledger.submit, there + back))
    assert await place.rows("SELECT count(*) FROM transfer") == [(22,)]
    assert await ledger.balance("alice") == 1000
    assert (await read_books(ledger.database)).balance
