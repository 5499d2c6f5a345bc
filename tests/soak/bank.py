"""The bank: transfers between accounts, each written down under a number of its own.

Services as a user of txkit writes them: a function that is a unit, made of smaller
ones that join it. Every kind of unit that may end in a way of its own is here: with
a hook that needs a transaction, with an audit that stays whatever becomes of the
transfer, with atomic parts that are committed one by one.
"""

from __future__ import annotations

import asyncio
import itertools
import random

from sqlalchemy import text

from tests.soak.units import Book, Caller, Hold, Refused, Unit
from txkit import (
    Database,
    after_commit,
    after_completion,
    atomic,
    db_session,
    new_context,
    transactional,
)

ACCOUNTS = 200
BALANCE = 1000
APPLICATION = "bank"
GATE = 42
SETTINGS = """
synchronous_commit = local
synchronous_standby_names = 'nobody'
full_page_writes = on
max_wal_size = 128MB
"""
"""Committed is durable, and a COMMIT that asks for a standby's answer waits for it in vain."""

SCHEMA = f"""
CREATE TABLE account (id INTEGER PRIMARY KEY, balance BIGINT NOT NULL);
INSERT INTO account SELECT n, {BALANCE} FROM generate_series(1, {ACCOUNTS}) n;
CREATE TABLE journal (id BIGINT PRIMARY KEY, hold TEXT);
CREATE TABLE audit (id BIGINT PRIMARY KEY);
CREATE TABLE notice (id BIGINT PRIMARY KEY);
CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.hold = '{Hold.BEFORE.value}') EXECUTE FUNCTION wait_at_gate();
"""


class Bank:
    """The Database, the book, and the draw of what a unit is to do."""

    def __init__(self, db: Database, book: Book, chance: random.Random, *, audits: int) -> None:
        self.db = db
        self.book = book
        self.chance = chance
        self.audits = asyncio.Semaphore(audits)  # each holds a connection while it waits for one
        self._numbers = itertools.count(1)

    def transfer(self, kind: str, caller: Caller) -> Unit:
        """Draw a transfer. Its accounts are in order, so that two never wait for each other."""
        one, other = sorted(self.chance.sample(range(1, ACCOUNTS + 1), 2))
        amount = self.chance.randint(-50, 50)
        draw = self.chance.random()
        return Unit(
            next(self._numbers),
            kind,
            caller,
            moves=[(one, amount), (other, -amount)],
            hold=Hold.BEFORE if draw < 0.2 else Hold.AFTER if draw < 0.35 else None,
            listens=self.chance.random() < 0.7,
        )

    def audit(self, caller: Caller) -> Unit:
        return Unit(next(self._numbers), "audit", caller, listens=self.chance.random() < 0.7)


def listen(unit: Unit) -> None:
    """Let the unit's own hook tell how it ended."""
    if unit.listens:
        after_completion(unit.told.append)
        unit.is_listening = True


@transactional
async def move(bank: Bank, account: int, amount: int) -> None:
    session = await db_session(bank.db)
    statement = text("UPDATE account SET balance = balance + :amount WHERE id = :id")
    await session.execute(statement, {"amount": amount, "id": account})


@transactional
async def write_down(bank: Bank, unit: Unit) -> None:
    session = await db_session(bank.db)
    if unit.hold is Hold.AFTER:
        await session.execute(text("SET LOCAL synchronous_commit = on"))
    statement = text("INSERT INTO journal VALUES (:id, :hold) RETURNING pg_backend_pid()")
    values = {"id": unit.number, "hold": unit.hold and unit.hold.value}
    bank.book.at[(await session.execute(statement, values)).scalar_one()] = unit


@transactional
async def book_transfer(bank: Bank, unit: Unit) -> None:
    for account, amount in unit.moves:
        await move(bank, account, amount)
    await write_down(bank, unit)


@transactional
async def write_notice(bank: Bank, unit: Unit) -> None:
    session = await db_session(bank.db)
    await session.execute(text("INSERT INTO notice VALUES (:id)"), {"id": unit.number})


@transactional
async def transfer(bank: Bank, unit: Unit) -> None:
    listen(unit)
    await book_transfer(bank, unit)


@transactional
async def transfer_and_notify(bank: Bank, unit: Unit) -> None:
    async def notify() -> None:
        await write_notice(bank, unit)
        unit.is_noticed = True

    after_commit(notify)
    listen(unit)
    await book_transfer(bank, unit)


@transactional
async def transfer_and_refuse(bank: Bank, unit: Unit) -> None:
    listen(unit)
    await book_transfer(bank, unit)
    raise Refused


@transactional
async def transfer_with_audit(bank: Bank, unit: Unit, audited: Unit) -> None:
    listen(unit)
    await move(bank, *unit.moves[0])
    await bank.book.run(audited, audit(bank, audited))
    await move(bank, *unit.moves[1])
    await write_down(bank, unit)


@new_context
async def audit(bank: Bank, unit: Unit) -> None:
    listen(unit)
    session = await db_session(bank.db)
    await session.execute(text("INSERT INTO audit VALUES (:id)"), {"id": unit.number})


@atomic
async def transfer_atomically(bank: Bank, unit: Unit) -> None:
    listen(unit)
    for account, amount in unit.moves:
        await move(bank, account, amount)
    await atomic(write_down)(bank, unit)


async def plain(bank: Bank, caller: Caller) -> None:
    unit = bank.transfer("plain", caller)
    await bank.book.run(unit, transfer(bank, unit))


async def notified(bank: Bank, caller: Caller) -> None:
    unit = bank.transfer("notified", caller)
    await bank.book.run(unit, transfer_and_notify(bank, unit))


async def refused(bank: Bank, caller: Caller) -> None:
    unit = bank.transfer("refused", caller)
    await bank.book.run(unit, transfer_and_refuse(bank, unit))


async def audited(bank: Bank, caller: Caller) -> None:
    async with bank.audits:
        unit = bank.transfer("audited", caller)
        await bank.book.run(unit, transfer_with_audit(bank, unit, bank.audit(caller)))


async def atomic_alone(bank: Bank, caller: Caller) -> None:
    unit = bank.transfer("atomic", caller)
    await bank.book.run(unit, transfer_atomically(bank, unit))


@transactional
async def standing_order(bank: Bank, caller: Caller) -> None:
    """Two parts, each committed as it returns."""
    for _ in range(2):
        unit = bank.transfer("standing order", caller)
        await bank.book.run(unit, transfer_atomically(bank, unit))


KINDS = {plain: 4, notified: 3, audited: 2, atomic_alone: 3, standing_order: 2, refused: 1}
"""Each kind of unit, and how often it is drawn."""
