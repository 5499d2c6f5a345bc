"""What can be done with the ledger. Each service is decorated: alone it is a unit, called by
another decorated function it joins that one's.

Two rules hold the audit trail together. That an order was posted is recorded in
the transfer's own unit: both are there, or neither. That it was refused is
recorded by a unit of its own *after* the transfer's has been rolled back, by
``submit``, which is undecorated on purpose: inside the transfer's unit the
record would be lost with it, and beside it SQLite's one writer would be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from samples.ledger.orders import (
    LONGEST,
    KeyTakenError,
    Order,
    OverdrawnError,
    RefusedError,
    UnknownAccountError,
    check_text,
    show_cents,
)
from samples.ledger.tables import Account, Attempt, Posting, Transfer
from txkit import Database, db_session, transactional

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class Receipt:
    """The order was posted, by this call or before it."""

    key: str
    posted_before: bool


class Ledger:
    """The services of one ledger, in one Database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def submit(self, order: Order) -> Receipt:
        """Try to post an order, and keep a record of it whatever happens.

        Raises:
            RefusedError: nothing was posted; the attempt is recorded.
        """
        try:
            return await self.transfer(order)
        except RefusedError as error:
            refusal = error
        await self.record_refusal(refusal)
        raise refusal

    @transactional
    async def transfer(self, order: Order) -> Receipt:
        """Post an order, once; an order that was posted before is left as it is.

        Raises:
            RefusedError: nothing was posted.
        """
        session = await db_session(self.database)
        accounts = await self._lock_accounts(session, order)
        posted = await session.get(Transfer, order.key)
        if posted is not None:
            return await self._acknowledge(posted, order)
        for name in (order.source, order.target):
            if name not in accounts:
                raise UnknownAccountError(order, f"there is no account {name!r}")
        source = accounts[order.source]
        if source.balance_cents < order.amount_cents and not source.may_be_overdrawn:
            has, wanted = show_cents(source.balance_cents), show_cents(order.amount_cents)
            raise OverdrawnError(order, f"{source.name!r} has {has}, {wanted} was asked for")
        await self._post(session, order, source, accounts[order.target])
        await self.record_attempt(order, "posted")
        return Receipt(order.key, posted_before=False)

    @transactional
    async def record_attempt(self, order: Order, outcome: str, reason: str = "") -> None:
        """Write a line of the audit trail: in the caller's unit, or in one of its own."""
        session = await db_session(self.database)
        session.add(
            Attempt(
                key=order.key,
                source=order.source,
                target=order.target,
                amount_cents=order.amount_cents,
                outcome=outcome,
                reason=reason,
            )
        )

    async def record_refusal(self, refusal: RefusedError) -> None:
        """Write that an order was refused, and why."""
        await self.record_attempt(refusal.order, "refused", refusal.reason)

    @transactional
    async def open_account(self, name: str) -> bool:
        """Open an account; False if it is open already.

        Raises:
            MalformedError: an account can't have that name.
        """
        check_text("name", name, LONGEST["source"])
        session = await db_session(self.database)
        try:
            async with session.begin_nested():  # only this part fails if somebody was faster
                session.add(Account(name=name))
        except IntegrityError:
            return False
        return True

    @transactional
    async def balance(self, name: str) -> int | None:
        """Read an account's balance in cents; None if there is no such account."""
        session = await db_session(self.database)
        account = await session.get(Account, name)
        return None if account is None else account.balance_cents

    async def _lock_accounts(self, session: AsyncSession, order: Order) -> dict[str, Account]:
        """Read both accounts so that nobody changes them before this unit ends.

        PostgreSQL locks the rows, always in the order of their names, against deadlocks. SQLite
        has no FOR UPDATE and needs none: txkit begins with BEGIN IMMEDIATE there.
        """
        both = select(Account).where(Account.name.in_([order.source, order.target]))
        rows = await session.scalars(both.order_by(Account.name).with_for_update())
        return {account.name: account for account in rows}

    async def _acknowledge(self, posted: Transfer, order: Order) -> Receipt:
        before = Order(posted.key, posted.source, posted.target, posted.amount_cents, posted.text)
        if before != order:
            raise KeyTakenError(order, f"key {order.key!r} was used for another transfer")
        await self.record_attempt(order, "already posted")
        return Receipt(order.key, posted_before=True)

    async def _post(
        self, session: AsyncSession, order: Order, source: Account, target: Account
    ) -> None:
        session.add(
            Transfer(
                key=order.key,
                source=order.source,
                target=order.target,
                amount_cents=order.amount_cents,
                text=order.text,
            )
        )
        try:
            await session.flush()
        except IntegrityError as error:
            # The same key at the same moment, for other accounts: those locks didn't meet.
            reason = f"key {order.key!r} was used for another transfer"
            raise KeyTakenError(order, reason) from error
        for account, cents in ((source, -order.amount_cents), (target, order.amount_cents)):
            account.balance_cents += cents
            session.add(Posting(transfer_key=order.key, account=account.name, amount_cents=cents))
