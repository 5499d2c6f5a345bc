"""Read the books back, and say whether they balance.

Every check is one statement, so that a transfer committed between two of them
can't make the books look wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from samples.ledger.tables import Account, Attempt, Posting, Transfer
from txkit import Database, db_session, transactional


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger holds."""

    balances: dict[str, int]
    transfers: int
    attempts: dict[str, int]
    sum_of_postings_cents: int
    unbalanced_transfers: list[str]
    wrong_balances: list[str]

    @property
    def balance(self) -> bool:
        """Whether double entry holds: nothing came from nowhere, nothing got lost."""
        return not (self.sum_of_postings_cents or self.unbalanced_transfers or self.wrong_balances)


@transactional
async def read_books(database: Database) -> Books:
    """Read all that a report needs."""
    session = await db_session(database)
    amount = func.coalesce(func.sum(Posting.amount_cents), 0)
    per_transfer = (
        select(Transfer.key)
        .join(Posting, Posting.transfer_key == Transfer.key, isouter=True)
        .group_by(Transfer.key)
        .having((amount != 0) | (func.count(Posting.id) != 2))  # noqa: PLR2004 - double entry
    )
    per_account = (
        select(Account.name)
        .join(Posting, Posting.account == Account.name, isouter=True)
        .group_by(Account.name, Account.balance_cents)
        .having(amount != Account.balance_cents)
    )
    balances = select(Account.name, Account.balance_cents).order_by(Account.name)
    attempts = select(Attempt.outcome, func.count()).group_by(Attempt.outcome)
    return Books(
        balances={str(name): int(cents) for name, cents in await session.execute(balances)},
        transfers=await session.scalar(select(func.count()).select_from(Transfer)) or 0,
        attempts={str(outcome): int(n) for outcome, n in await session.execute(attempts)},
        sum_of_postings_cents=int(await session.scalar(select(amount)) or 0),
        unbalanced_transfers=list(await session.scalars(per_transfer)),
        wrong_balances=list(await session.scalars(per_account)),
    )
