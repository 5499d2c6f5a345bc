"""What an engine_factory gives is checked when it gives it; nothing connects here."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from txkit import Database

PG = "postgresql+asyncpg://user:pw@h:5433/shop"


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (lambda _: None, "gave a NoneType: make it a plain function"),
        (lambda _: create_async_engine("sqlite+aiosqlite://"), "has a StaticPool"),
        (
            lambda _: create_async_engine(PG, isolation_level="AUTOCOMMIT"),
            "AUTOCOMMIT",
        ),
        (
            lambda _: create_async_engine(PG, execution_options={"isolation_level": "AUTOCOMMIT"}),
            "AUTOCOMMIT",
        ),
    ],
)
async def test_what_an_engine_factory_gives_is_checked(factory: object, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        await Database(engine_factory=factory).engine()  # type: ignore[arg-type]


async def test_engine_factory_that_gives_the_same_engine_again_is_refused() -> None:
    engine = create_async_engine(PG)
    db = Database(engine_factory=lambda _: engine)
    assert await db.engine() is engine
    await db.close()
    with pytest.raises(TypeError, match=r"same engine again.*create_async_engine\(\) inside"):
        await db.engine()
