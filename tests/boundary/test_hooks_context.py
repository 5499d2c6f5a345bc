"""after_* hooks run with no context, on a free connection, and the context comes back. On both.

The pool has one connection: a unit of a hook's own gets it, or nobody does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

import pytest

from tests.conftest import Place, opened
from tests.notes import Boom, count, write
from tests.ways import COMMITS, ROLLBACKS, UNITS, End, Unit
from txkit import (
    Database,
    NoContextError,
    after_commit,
    after_completion,
    after_rollback,
    atomic,
    before_commit,
    db_session,
    in_transaction,
    new_context,
    set_rollback_only,
    transactional,
)
from txkit._core.place import current

Register = Callable[[], object]
Ending = Callable[[Database, Register], Awaitable[object]]


@pytest.fixture
async def single(place: Place) -> AsyncIterator[Place]:
    """One connection, for which nobody waits long."""
    async for db in opened(place.judge, name="single", pool_size=1, max_overflow=0, pool_timeout=2):
        yield Place(db, place.judge)


def end_of(unit: Unit) -> Ending:
    async def run(db: Database, register: Register) -> None:
        async with unit(db):
            await write(db, "unit")
            register()

    return run


def by_hand(end: End) -> Ending:
    async def run(db: Database, register: Register) -> None:
        async with transactional():
            await write(db, "unit")
            register()
            await end(db)
            assert current() is not None
            await count(db)

    return run


async def exception(db: Database, register: Register) -> None:
    with pytest.raises(Boom):
        async with transactional():
            await write(db, "unit")
            register()
            raise Boom


async def request(db: Database, register: Register) -> None:
    async with transactional():
        await write(db, "unit")
        register()
        set_rollback_only()


async def exception_in_a_block(db: Database, register: Register) -> None:
    async with transactional():
        with pytest.raises(Boom):
            async with atomic(db):
                await write(db, "unit")
                register()
                raise Boom
        await count(db)


ENDINGS: dict[str, Ending] = {
    **{unit.__name__: end_of(unit) for unit in UNITS},
    **{f"{end.__name__} by hand": by_hand(end) for end in [*COMMITS, *ROLLBACKS]},
    "exception": exception,
    "request": request,
    "exception in a block": exception_in_a_block,
}
every_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


@every_ending
async def test_hook_has_no_context_a_free_connection_and_units_of_its_own(
    single: Place, ending: Ending
) -> None:
    """Scenario: a hook looks around, then calls a service, which registers a hook as well.
    Outcome: nothing of the unit is in reach and every connection in the pool; the service
    commits what it wrote, and its hook follows."""
    told: list[object] = []
    pool = (await single.db.engine()).pool

    @transactional
    async def service() -> None:
        await write(single.db, "of the hook")
        after_commit(lambda: told.append("hook of the hook"))

    async def hook(_: str) -> None:
        told.append(pool.checkedout())  # type: ignore[attr-defined]
        told.append(in_transaction() or in_transaction(single.db))
        for refused in (before_commit, after_commit, after_rollback, after_completion):
            with pytest.raises(NoContextError):
                refused(hook)
        with pytest.raises(NoContextError):
            set_rollback_only()
        with pytest.raises(NoContextError, match="@transactional"):
            await db_session(single.db)
        await service()
        told.append(await single.texts())

    await ending(single.db, lambda: after_completion(hook))
    assert told[:3] == [0, False, "hook of the hook"]
    assert told[3:] in ([["of the hook"]], [["unit", "of the hook"]])


@pytest.mark.parametrize("face", ["function", "block"])
async def test_boundary_inside_another_context_takes_that_away_too(
    single: Place, face: str
) -> None:
    """Scenario: a new context inside one that has a session, but holds no connection.
    Outcome: its hooks see neither; after the end the outer one is there with its session."""
    seen: list[str] = []

    @transactional
    async def service() -> None:
        await write(single.db, "of the hook")

    async def hook() -> None:
        with pytest.raises(NoContextError):
            await db_session(single.db)
        await service()
        seen.append("ran")

    async def body() -> None:
        await write(single.db, "unit")
        after_commit(hook)

    async with transactional():
        session = await db_session(single.db)
        if face == "block":
            async with new_context():
                await body()
        else:
            await new_context(body)()
        assert seen == ["ran"]
        assert await db_session(single.db) is session
        assert not in_transaction()
        await write(single.db, "outer")
    assert await single.texts() == ["unit", "of the hook", "outer"]


async def test_decorated_function_may_be_the_hook(single: Place) -> None:
    @transactional
    async def service() -> None:
        await write(single.db, "service")

    @atomic(single.db)
    async def block() -> None:
        await write(single.db, "block")

    async with transactional():
        after_commit(service)
        after_commit(block)
        await write(single.db, "unit")
    assert await single.texts() == ["unit", "service", "block"]


async def test_before_commit_hook_runs_in_the_context(single: Place) -> None:
    seen: list[object] = []
    async with transactional():
        session = await db_session(single.db)

        async def hook() -> None:
            seen.append(await db_session(single.db) is session)
            seen.append(in_transaction(single.db))

        await write(single.db, "unit")
        before_commit(hook)
    assert seen == [True, True]


async def test_savepoint_that_was_rolled_back_is_told_without_a_context(place: Place) -> None:
    """Its transaction is still open, and the caller's: only the context is out of reach."""
    seen: list[str] = []

    async def hook(outcome: str) -> None:
        with pytest.raises(NoContextError):
            await db_session(place.db)
        assert not in_transaction()
        seen.append(outcome)

    async with transactional():
        await write(place.db, "a")
        with pytest.raises(Boom):
            async with atomic(place.db, current_transaction="savepoint"):
                after_completion(hook)
                await write(place.db, "lost")
                raise Boom
        with pytest.raises(Boom):
            async with (await db_session(place.db)).begin_nested():
                after_completion(hook)
                await write(place.db, "lost")
                raise Boom
        assert seen == ["rolled_back", "rolled_back"]
        assert in_transaction(place.db)
        await write(place.db, "b")
    assert await place.texts() == ["a", "b"]


async def test_hook_sees_the_users_own_context_variables(place: Place) -> None:
    """Only txkit's context is set aside; what it sets itself stays its own."""
    request_id: ContextVar[str] = ContextVar("request_id", default="none")
    seen: list[str] = []

    def hook() -> None:
        seen.append(request_id.get())
        request_id.set("changed")

    async with transactional():
        request_id.set("42")
        after_commit(hook)
        await write(place.db, "a")
    assert seen == ["42"]
    assert request_id.get() == "42"
