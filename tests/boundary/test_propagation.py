"""All seven propagations in all six surroundings: what is decided, and what it does. On both backends.

The decision is read off its effects alone: which session and backend the body works
on, and what a second connection sees while it runs and after it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from tests.boundary.faces import BOTH_FACES, Run, is_postgres, where
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    Propagation,
    TransactionNotAllowedError,
    TransactionRequiredError,
    UnexpectedRollbackError,
    atomic,
    db_session,
    in_transaction,
    transactional,
)

JOINS, OPENS, SAVEPOINT, AUTOCOMMIT = "joins", "opens", "savepoint", "autocommit"
NEEDS, FORBIDS = TransactionRequiredError, TransactionNotAllowedError

TABLE = {
    #                 none        transactional  autocommit  closed      atomic      nested
    "required": (OPENS, JOINS, OPENS, OPENS, JOINS, JOINS),
    "requires_new": (OPENS, OPENS, OPENS, OPENS, OPENS, OPENS),
    "nested": (OPENS, SAVEPOINT, OPENS, OPENS, SAVEPOINT, SAVEPOINT),
    "mandatory": (NEEDS, JOINS, NEEDS, NEEDS, JOINS, JOINS),
    "supports": (AUTOCOMMIT, JOINS, JOINS, AUTOCOMMIT, JOINS, JOINS),
    "not_supported": (AUTOCOMMIT, AUTOCOMMIT, JOINS, AUTOCOMMIT, AUTOCOMMIT, AUTOCOMMIT),
    "never": (AUTOCOMMIT, FORBIDS, JOINS, AUTOCOMMIT, FORBIDS, FORBIDS),
}
SURROUNDINGS = ("none", "transactional", "autocommit", "closed", "atomic", "nested")
PAIRS = [
    (how, around, TABLE[how][column]) for how in TABLE for column, around in enumerate(SURROUNDINGS)
]
EFFECTS = [pair for pair in PAIRS if isinstance(pair[2], str)]
REFUSALS = [pair for pair in PAIRS if not isinstance(pair[2], str)]


def test_table_has_every_propagation() -> None:
    assert set(TABLE) == set(Propagation)


@contextlib.asynccontextmanager
async def surrounded(place: Place, around: str) -> AsyncIterator[None]:
    """Stand in these surroundings."""
    async with contextlib.AsyncExitStack() as stack:
        if around in {"transactional", "nested"}:
            await stack.enter_async_context(transactional())
        if around == "nested":
            await stack.enter_async_context(transactional(propagation="nested"))
        elif around == "atomic":
            await stack.enter_async_context(atomic(place.db))
        elif around == "autocommit":
            await stack.enter_async_context(transactional(propagation="not_supported"))
        yield


async def within(place: Place, around: str, check: Callable[[], Awaitable[None]]) -> None:
    """Await ``check`` in these surroundings."""
    if around != "closed":
        async with surrounded(place, around):
            await check()
        return
    closed = asyncio.Event()

    async def outlives() -> None:
        await closed.wait()
        await check()

    async with transactional():
        task = asyncio.create_task(outlives())
    closed.set()
    await task


class Seen(NamedTuple):
    at: tuple[object, ...]
    durable: bool
    in_transaction: bool


async def work(place: Place) -> Seen:
    await write(place.db, "inner")
    durable = "inner" in await place.texts()
    is_in = in_transaction(place.db)
    return Seen(await where(place), durable, is_in)


@BOTH_FACES
@pytest.mark.parametrize(("how", "around", "effect"), EFFECTS)
async def test_normal_return(place: Place, run: Run, how: str, around: str, effect: str) -> None:
    has_context = around not in {"none", "closed"}
    # SQLite has one writer: there a caller that is set aside may not have written before.
    writes_before = has_context and (is_postgres(place) or effect in {JOINS, SAVEPOINT})

    async def check() -> None:
        if writes_before:
            await write(place.db, "before")
        before = await where(place) if has_context else ()
        seen: Seen = await run(transactional(propagation=how), lambda: work(place))
        shown = await place.texts()
        if effect in {JOINS, SAVEPOINT}:
            assert seen.at[0] is before[0]
            if around != "autocommit":  # where each statement has another xid
                assert seen.at == before
                assert ("inner" in shown, seen.in_transaction) == (False, True)
        elif has_context:
            assert seen.at[0] is not before[0]
            assert not is_postgres(place) or seen.at[1] != before[1]
        if effect is OPENS:
            assert (seen.durable, seen.in_transaction, "inner" in shown) == (False, True, True)
        if effect is AUTOCOMMIT or (around == "autocommit" and effect is JOINS):
            assert (seen.durable, seen.in_transaction) == (True, False)
        if has_context:
            await write(place.db, "after")
            if around != "autocommit":
                assert (await where(place))[: len(before)] == before

    await within(place, around, check)
    expected = ["before"] * writes_before + ["inner"] + ["after"] * has_context
    assert await place.texts() == expected


@BOTH_FACES
@pytest.mark.parametrize(("how", "around", "effect"), EFFECTS)
async def test_exception(place: Place, run: Run, how: str, around: str, effect: str) -> None:
    """Scenario: the body writes and fails, its caller swallows that and goes on.
    Outcome: rolled back alone; of a joined call, with what it joined; in autocommit it stays."""
    has_context = around not in {"none", "closed"}
    joins = effect is JOINS and around != "autocommit"
    writes_before = has_context and (is_postgres(place) or effect in {JOINS, SAVEPOINT})

    async def fails() -> None:
        await write(place.db, "inner")
        raise Boom

    async def check() -> None:
        if writes_before:
            await write(place.db, "before")
        with pytest.raises(Boom):
            await run(transactional(propagation=how), fails)
        if has_context and not joins:
            await write(place.db, "after")

    if joins:
        with pytest.raises(UnexpectedRollbackError) as caught:
            await within(place, around, check)
        assert type(caught.value.__cause__) is Boom
        assert await place.texts() == []
        return
    await within(place, around, check)
    keeps = effect is AUTOCOMMIT or (around == "autocommit" and effect is JOINS)
    expected = ["before"] * writes_before + ["inner"] * keeps + ["after"] * has_context
    assert await place.texts() == expected


@BOTH_FACES
@pytest.mark.parametrize(("how", "around", "error"), REFUSALS)
async def test_refusal(
    place: Place, run: Run, how: str, around: str, error: type[NEEDS | FORBIDS]
) -> None:
    """The body is not entered, nothing is marked, the context goes on and commits."""
    has_context = around not in {"none", "closed"}
    entered: list[Any] = []

    async def body() -> None:
        entered.append(1)

    async def check() -> None:
        if has_context:
            await write(place.db, "before")
        with pytest.raises(error) as caught:
            await run(transactional(propagation=how, name="close_books"), body)
        assert caught.value.function == "close_books"
        assert "close_books" in str(caught.value)
        if error is FORBIDS:
            opened_by = caught.value.opened_by
            assert "block in" in opened_by
            assert opened_by in str(caught.value)
        if has_context:
            assert await db_session(place.db)
            await write(place.db, "after")

    await within(place, around, check)
    assert not entered
    assert await place.texts() == ["before", "after"] * has_context


@BOTH_FACES
@pytest.mark.parametrize("how", ["mandatory", "never"])
async def test_member_means_what_its_text_means(place: Place, run: Run, how: str) -> None:
    async def check() -> None:
        with pytest.raises((NEEDS, FORBIDS)):
            await run(transactional(propagation=Propagation(how)), asyncio.Event().wait)

    await within(place, "none" if how == "mandatory" else "transactional", check)
