"""Options of a joined or nested call: honoured or refused before its body, over all pairs.

On both backends, and by both faces. Refused means: both functions and both values
are named, nothing is marked, and the transaction goes on and commits.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.boundary.faces import BOTH_FACES, Run, as_block, as_function, is_postgres
from tests.conftest import Place
from tests.notes import Boom, count, write
from txkit import (
    IncompatibleTransactionError,
    atomic,
    commit_db_session,
    db_session,
    new_context,
    set_rollback_only,
    transactional,
)

LEVELS = (None, "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
DEFERRED = {"isolation": "SERIALIZABLE", "read_only": True, "deferrable": True}
OPTIONS: list[dict[str, Any]] = [
    {"isolation": level, "read_only": read_only}
    for level, read_only in itertools.product(LEVELS, (None, True, False))
]
OPTIONS.append(DEFERRED)
HOWS = ("required", "mandatory", "nested")


def _name(options: dict[str, Any]) -> str:
    words = {None: "read ?", True: "read only", False: "read write"}[options["read_only"]]
    wait = ", deferrable" if options.get("deferrable") else ""
    return f"{(options['isolation'] or 'any level').lower()}, {words}{wait}"


def conflicts(
    boundary: dict[str, Any], asked: dict[str, Any], default: str
) -> list[tuple[str, object, object]]:
    """What the contract says: the options that can't be honoured, what is asked for, what is found."""
    found: list[tuple[str, object, object]] = []
    level = boundary["isolation"] or default
    if asked["isolation"] not in {None, level}:
        found.append(("isolation", asked["isolation"], level))
    if asked["read_only"] is False and boundary["read_only"]:
        found.append(("read_only", False, True))
    if asked.get("deferrable") and not boundary.get("deferrable"):
        found.append(("deferrable", True, False))
    return found


async def _touch(place: Place, text: str, *, writes: bool) -> None:
    """Use the database as the boundary allows."""
    if writes:
        await write(place.db, text)
    else:
        await count(place.db)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("boundary", OPTIONS, ids=_name)
async def test_all_pairs(place: Place, boundary: dict[str, Any], how: str) -> None:
    default = "READ COMMITTED" if is_postgres(place) else "SERIALIZABLE"
    writes = not boundary["read_only"]
    expected: list[str] = []
    async with transactional(name="import_day", **boundary):
        await _touch(place, "before", writes=writes)
        for (number, asked), run in itertools.product(enumerate(OPTIONS), (as_function, as_block)):
            entered: list[int] = []

            async def body(number: int = number, entered: list[int] = entered) -> None:
                entered.append(number)
                await _touch(place, str(number), writes=writes)

            unit = transactional(propagation=how, name="close_books", **asked)
            known = conflicts(boundary, asked, default)
            if not known:
                await run(unit, body)
                expected.append(str(number))
                assert entered == [number]
                continue
            with pytest.raises(IncompatibleTransactionError) as caught:
                await run(unit, body)
            assert not entered
            error = caught.value
            assert (error.option, error.asked, error.found) in known
            assert (error.function, error.boundary) == ("close_books", "import_day")
            asks, finds = f"{error.option}={error.asked}", f"{error.option}={error.found}"
            assert all(x in str(error) for x in ("close_books", "import_day", asks, finds))
            assert await place.texts() == []
        await _touch(place, "after", writes=writes)
    assert await place.texts() == (["before", *expected, "after"] if writes else [])


@BOTH_FACES
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("asked", ["serializable", "Repeatable_Read", "READ  UNCOMMITTED"])
async def test_spelling_does_not_matter(place: Place, run: Run, how: str, asked: str) -> None:
    level = " ".join(asked.replace("_", " ").split()).upper()
    async with transactional(isolation=level):
        await run(transactional(propagation=how, isolation=asked.swapcase()), _nothing)


async def _nothing() -> None:
    pass


@BOTH_FACES
@pytest.mark.parametrize("how", HOWS)
async def test_database_that_comes_into_use_inside_is_checked_there(
    place: Place, run: Run, how: str
) -> None:
    """Scenario: nothing is in use yet, so that the joined call can be entered.
    Outcome: ``db_session`` refuses what the engine's level can't honour, and marks nothing;
    what is left to joined calls that ask for nothing goes on."""

    async def body() -> None:
        for _ in range(2):
            with pytest.raises(IncompatibleTransactionError) as caught:
                await db_session(place.db)
            error = caught.value
            assert (error.function, error.option) == ("close_books", "isolation")
            assert error.asked == other

    other = "SERIALIZABLE" if is_postgres(place) else "READ COMMITTED"
    async with transactional():
        await run(transactional(propagation=how, isolation=other, name="close_books"), body)
        await write(place.db, "a")
    assert await place.texts() == ["a"]


@BOTH_FACES
@pytest.mark.parametrize("how", HOWS)
async def test_database_that_comes_into_use_inside_may_honour_it(
    place: Place, run: Run, how: str
) -> None:
    level = "READ COMMITTED" if is_postgres(place) else "SERIALIZABLE"
    async with transactional():
        await run(transactional(propagation=how, isolation=level), lambda: write(place.db, "a"))
    assert await place.texts() == ["a"]


@BOTH_FACES
@pytest.mark.parametrize("how", HOWS)
async def test_refusal_leaves_hooks_and_requests_to_who_goes_on(
    place: Place, run: Run, how: str
) -> None:
    """The refused function is not the one that runs afterwards, in nobody's name."""
    async with transactional(read_only=False):
        await write(place.db, "lost")
        with pytest.raises(IncompatibleTransactionError):
            await run(transactional(propagation=how, **DEFERRED), _nothing)
        set_rollback_only("asked by the boundary itself")
    assert await place.texts() == []


@BOTH_FACES
async def test_atomic_block_is_the_boundarys_transaction(place: Place, run: Run) -> None:
    async with transactional(read_only=False, name="import_day"):
        async with atomic(place.db):
            await write(place.db, "a")
            with pytest.raises(IncompatibleTransactionError) as caught:
                await run(transactional(**DEFERRED), _nothing)
            assert caught.value.boundary == "import_day"
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]


@BOTH_FACES
@pytest.mark.parametrize("asked", OPTIONS, ids=_name)
@pytest.mark.parametrize("way", [new_context, transactional(propagation="requires_new")])
async def test_unit_of_its_own_is_never_refused(
    place: Place, run: Run, asked: dict[str, Any], way: Any
) -> None:
    unit = new_context(**asked) if way is new_context else None
    unit = unit or transactional(propagation="requires_new", **asked)
    async with transactional(isolation="REPEATABLE READ", read_only=True):
        await count(place.db)
        await run(unit, lambda: _touch(place, "a", writes=not asked["read_only"]))
    assert await place.texts() == ["a"] * (not asked["read_only"])


async def test_refusal_after_an_early_commit_is_the_same(place: Place) -> None:
    async with transactional(isolation="REPEATABLE READ"):
        await write(place.db, "a")
        await commit_db_session(place.db)
        with pytest.raises(IncompatibleTransactionError):
            async with transactional(isolation="READ COMMITTED"):
                raise AssertionError
        await write(place.db, "b")
    assert await place.texts() == ["a", "b"]


async def test_refusal_that_leaves_the_boundary_rolls_it_back(place: Place) -> None:
    with pytest.raises(IncompatibleTransactionError) as caught:
        async with transactional(no_rollback_for=Boom):
            await write(place.db, "lost")
            async with transactional(isolation="REPEATABLE READ"):
                raise AssertionError
    assert not hasattr(caught.value, "__notes__")
    assert await place.texts() == []
