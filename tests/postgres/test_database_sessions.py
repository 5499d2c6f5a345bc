"""A session_factory of the user's is used as it is; one that leads elsewhere is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from tests.conftest import PostgresJudge
from tests.notes import Boom, write
from txkit import (
    AtomicControlError,
    Database,
    atomic,
    commit_db_session,
    db_session,
    transactional,
)


class Base(DeclarativeBase):
    metadata = MetaData()


class Note(Base):
    __tablename__ = "note"
    id = Column(Integer, primary_key=True)
    text = Column(String)


class OwnSync(Session):
    """A sync session of the user's, with a method overridden and listeners."""

    flushes = 0

    def flush(self, objects: Any = None) -> None:
        self.flushes += 1
        super().flush(objects)

    def commit(self) -> None:
        self.info["committed"] = True
        super().commit()


class OwnAsync(AsyncSession):
    sync_session_class = OwnSync

    def hello(self) -> str:
        return "hello"


def own_sessions(engine: AsyncEngine) -> async_sessionmaker[Any]:
    return async_sessionmaker(
        engine, class_=OwnAsync, expire_on_commit=True, close_resets_only=True, info={"mine": 1}
    )


async def test_own_classes_options_and_listeners_are_used(pg: PostgresJudge) -> None:
    heard: list[str] = []

    def listener(_: Session) -> None:
        heard.append("after_commit")

    event.listen(OwnSync, "after_commit", listener)
    try:
        async with Database(pg.url, session_factory=own_sessions) as db:

            @transactional
            async def unit() -> None:
                session = await db_session(db)
                assert type(session) is OwnAsync
                assert isinstance(session.sync_session, OwnSync)
                assert (session.hello(), session.info) == ("hello", {"mine": 1})
                note = Note(text="a")
                session.add(note)
                await commit_db_session(db)
                assert session.sync_session.flushes >= 1
                assert session.sync_session.info["committed"]
                assert "text" not in note.__dict__, "expire_on_commit was honoured"
                session.add(Note(text="b"))

            await unit()
            assert heard == ["after_commit"] * 2
    finally:
        event.remove(OwnSync, "after_commit", listener)
    assert await pg.texts() == ["a", "b"]


async def test_guarantees_hold_and_the_class_is_left_alone(pg: PostgresJudge) -> None:
    """Scenario: a session made by hand of the same class stays as free as it was."""
    methods = {name: OwnSync.__dict__.get(name) for name in ("commit", "rollback", "get_bind")}
    async with Database(pg.url, session_factory=own_sessions) as db:

        @atomic(db)
        async def unit() -> None:
            session = await db_session(db)
            await write(db, "atomic")
            with pytest.raises(AtomicControlError):
                await session.commit()
            async with OwnAsync(await db.engine()) as by_hand:
                assert type(by_hand.sync_session) is OwnSync
                await by_hand.execute(text("INSERT INTO note (text) VALUES ('by hand')"))
                await by_hand.commit()
            assert await pg.texts() == ["by hand"]

        await unit()

        @transactional
        async def fails() -> None:
            await write(db, "lost")
            raise Boom

        with pytest.raises(Boom):
            await fails()
    assert methods == {name: OwnSync.__dict__.get(name) for name in methods}
    assert await pg.texts() == ["atomic", "by hand"]


async def test_reset_only_sessions_are_closed_and_renewed(pg: PostgresJudge) -> None:
    async with Database(pg.url, session_factory=own_sessions) as db:
        kept: list[AsyncSession] = []

        @transactional
        async def unit() -> None:
            kept.append(await db_session(db))
            await write(db, "a")

        await unit()
        await unit()
        assert kept[0] is not kept[1]
        with pytest.raises(Exception, match="that ended"):
            await kept[0].execute(text("SELECT 1"))
        assert [state for _, state in await pg.backends()] == ["idle"]


def unbound(_: AsyncEngine) -> Any:
    return async_sessionmaker()


def elsewhere(_: AsyncEngine) -> Any:
    return async_sessionmaker(create_async_engine("postgresql+asyncpg://u@nowhere/d"))


def several(engine: AsyncEngine) -> Any:
    other = create_async_engine("postgresql+asyncpg://u@nowhere/d")
    return async_sessionmaker(engine, binds={Note: other})


def only_binds(engine: AsyncEngine) -> Any:
    return async_sessionmaker(binds={Note: engine})


def sync(engine: AsyncEngine) -> Any:
    return sessionmaker(engine.sync_engine)


@pytest.mark.parametrize("factory", [unbound, elsewhere, several, only_binds, sync])
async def test_sessions_that_lead_elsewhere_are_refused(
    pg: PostgresJudge, factory: Callable[[AsyncEngine], Any]
) -> None:
    db = Database(pg.url, name="shop", session_factory=factory)

    @transactional
    async def unit() -> None:
        with pytest.raises(
            TypeError,
            match=r"session_factory of <Database 'shop'.*return async_sessionmaker\(engine",
        ):
            await db_session(db)

    await unit()
    assert await pg.backends() == []
    await db.close()


async def test_get_bind_that_leads_elsewhere_is_refused_at_the_statement(
    pg: PostgresJudge, pg2: PostgresJudge
) -> None:
    other = create_async_engine(pg2.url.replace("postgresql:", "postgresql+asyncpg:"))

    class Routing(Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            return other.sync_engine

    class AsyncRouting(AsyncSession):
        sync_session_class = Routing

    db = Database(
        pg.url, session_factory=lambda engine: async_sessionmaker(engine, class_=AsyncRouting)
    )

    @transactional
    async def unit() -> None:
        session = await db_session(db)
        with pytest.raises(TypeError, match="routed to another engine"):
            await session.execute(text("INSERT INTO note (text) VALUES ('astray')"))

    await unit()
    assert await pg2.texts() == []
    assert (await pg.backends(), await pg2.backends()) == ([], [])
    await db.close()
    await other.dispose()


async def test_sessions_bound_to_a_connection_are_refused(pg: PostgresJudge) -> None:
    """Its transaction would outlive the units', and be committed by none of them."""
    maker = async_sessionmaker[AsyncSession]()
    bound = Database(pg.url, name="shop", session_factory=lambda _: maker)
    async with (await bound.engine()).connect() as connection, connection.begin():
        maker.configure(bind=connection)

        @transactional
        async def unit() -> None:
            with pytest.raises(TypeError, match=r"session_factory of <Database 'shop'.*connection"):
                await db_session(bound)

        await unit()
    await bound.close()
    assert await pg.texts() == []
