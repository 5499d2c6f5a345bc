"""The ledger's tables, and how they come into a database.

The database itself refuses what must never be: a second transfer with the same
key, an overdrawn account, money moved by nothing. The services ask first, to be
able to say why.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Integer,
    String,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from txkit import Database

EQUITY = "external"
"""The one account that may be overdrawn: where deposits come from."""

CHART = (EQUITY, "alice", "bob", "carol", "shop")
"""The accounts that a new ledger starts with; ``open`` adds others."""


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        int: BigInteger().with_variant(Integer(), "sqlite"),  # cents; and SQLite's own key type
        datetime: DateTime(timezone=True),
    }


class Account(Base):
    __tablename__ = "account"
    __table_args__ = (
        CheckConstraint("balance_cents >= 0 OR may_be_overdrawn", name="not_overdrawn"),
    )

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    balance_cents: Mapped[int] = mapped_column(default=0)
    may_be_overdrawn: Mapped[bool] = mapped_column(default=False)


class Transfer(Base):
    __tablename__ = "transfer"
    __table_args__ = (CheckConstraint("amount_cents > 0", name="something_moves"),)

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    source: Mapped[str] = mapped_column(ForeignKey("account.name"))
    target: Mapped[str] = mapped_column(ForeignKey("account.name"))
    amount_cents: Mapped[int]
    text: Mapped[str] = mapped_column(String(200))
    posted_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


class Posting(Base):
    """One side of a transfer: what an account got, or gave (negative)."""

    __tablename__ = "posting"

    id: Mapped[int] = mapped_column(primary_key=True)
    transfer_key: Mapped[str] = mapped_column(ForeignKey("transfer.key"), index=True)
    account: Mapped[str] = mapped_column(ForeignKey("account.name"), index=True)
    amount_cents: Mapped[int]


class Attempt(Base):
    """The audit trail: every order that was tried, and what became of it."""

    __tablename__ = "attempt"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), index=True)
    source: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(64))
    amount_cents: Mapped[int]
    outcome: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(300), default="")
    at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


async def make_tables(database: Database) -> None:
    """Make what is not there yet, also when several processes start on a new database at once."""
    async with (await database.engine()).begin() as connection:
        await connection.run_sync(_make_tables)


def _make_tables(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE is such a lock already
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('txkit ledger sample'))"))
    if not inspect(connection).has_table(Account.__tablename__):
        Base.metadata.create_all(connection)
    there = set(connection.scalars(select(Account.name)))
    for name in CHART:
        if name not in there:
            connection.execute(insert(Account).values(name=name, may_be_overdrawn=name == EQUITY))
