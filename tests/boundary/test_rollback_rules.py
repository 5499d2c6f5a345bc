"""``rollback_for``, ``no_rollback_for``, ``outcome``: what a second connection sees. On both backends.

The rules themselves are tested in tests/unit/test_outcome.py; here, that boundaries and
joined calls follow them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import write
from txkit import (
    UnexpectedRollbackError,
    db_session,
    new_context,
    transactional,
)


class Base(Exception):
    pass


class Child(Base):
    pass


class Grandchild(Child):
    pass


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several", errors)


CASES: list[tuple[dict[str, Any], BaseException, bool]] = [
    ({}, Base(), False),
    ({"no_rollback_for": Base}, Base(), True),
    ({"no_rollback_for": Base}, Grandchild(), True),
    ({"no_rollback_for": Child}, Base(), False),
    ({"no_rollback_for": (KeyError, Child)}, Grandchild(), True),
    # the nearest class on the MRO decides
    ({"no_rollback_for": Base, "rollback_for": Child}, Base(), True),
    ({"no_rollback_for": Base, "rollback_for": Child}, Grandchild(), False),
    ({"rollback_for": Base, "no_rollback_for": Child}, Grandchild(), True),
    ({"rollback_for": Base, "no_rollback_for": Child}, Base(), False),
    ({"rollback_for": (Base, Grandchild), "no_rollback_for": Child}, Grandchild(), False),
    # cancellation and its like never commit
    ({"no_rollback_for": Exception}, asyncio.CancelledError(), False),
    ({"no_rollback_for": Exception}, KeyboardInterrupt(), False),
    ({"no_rollback_for": Exception}, SystemExit(), False),
    ({"no_rollback_for": SystemExit}, SystemExit(), True),
    ({"outcome": lambda *_: True}, asyncio.CancelledError(), False),
    ({"outcome": lambda *_: True}, KeyboardInterrupt(), False),
    # a group commits if all of its leaves may
    ({"no_rollback_for": Base}, group(Base(), Grandchild()), True),
    ({"no_rollback_for": Base}, group(Base(), KeyError()), False),
    ({"no_rollback_for": Base}, group(group(Base()), group(Child(), Base())), True),
    ({"no_rollback_for": Base}, group(group(Base()), group(Child(), KeyError())), False),
    ({"no_rollback_for": Base, "rollback_for": Child}, group(Base(), Child()), False),
    ({"no_rollback_for": ExceptionGroup}, group(KeyError()), False),
    ({"no_rollback_for": Exception}, group(Base(), asyncio.CancelledError()), False),
    ({"outcome": lambda *_: True}, group(Base(), asyncio.CancelledError()), False),
    ({"outcome": lambda _, error: isinstance(error, ExceptionGroup)}, group(KeyError()), True),
]


def _name(value: object) -> str | None:
    if isinstance(value, dict):
        return ",".join(
            f"{option}={getattr(rule, '__name__', rule)}" for option, rule in value.items()
        )
    return repr(value) if isinstance(value, BaseException) else None


EVERY_CASE = pytest.mark.parametrize(("options", "error", "commits"), CASES, ids=_name)


@BOTH_FACES
@EVERY_CASE
async def test_boundary_follows_them(
    place: Place, run: Run, options: dict[str, Any], error: BaseException, commits: bool
) -> None:
    async def body() -> None:
        await write(place.db, "core")
        (await db_session(place.db)).add(Note(text="orm"))
        raise error

    with pytest.raises(type(error)) as caught:
        await run(transactional(**options), body)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert caught.value.__cause__ is None
    assert await place.texts() == ["core", "orm"] * commits


@pytest.mark.parametrize(("error", "commits"), [(Base(), True), (KeyError(), False)])
async def test_new_context_follows_them(place: Place, error: BaseException, commits: bool) -> None:
    with pytest.raises(type(error)):
        async with new_context(no_rollback_for=Base):
            await write(place.db, "a")
            raise error
    assert await place.texts() == ["a"] * commits


async def joined_failure(
    place: Place, run: Run, joined: Any, error: BaseException, commits: bool
) -> None:
    """Scenario: a joined call fails, its caller swallows the exception and returns.
    Outcome: the unit commits if the joined call's rules would, else it is doomed by the call."""

    async def body() -> None:
        await write(place.db, "inner")
        raise error

    async def unit() -> None:
        async with transactional():
            with pytest.raises(type(error)):
                await run(joined, body)

    if commits:
        await unit()
    else:
        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit()
        assert caught.value.__cause__ is error
        assert caught.value.culprit == "import_day"
    assert await place.texts() == ["inner"] * commits


@BOTH_FACES
@EVERY_CASE
async def test_joined_call_dooms_by_its_own(
    place: Place, run: Run, options: dict[str, Any], error: BaseException, commits: bool
) -> None:
    joined = transactional(name="import_day", **options)
    await joined_failure(place, run, joined, error, commits)


@BOTH_FACES
@pytest.mark.parametrize("how", ["mandatory", "supports"])
@pytest.mark.parametrize(("error", "commits"), [(Base(), True), (KeyError(), False)])
async def test_joined_call_of_another_propagation_does_so_too(
    place: Place, run: Run, how: str, error: BaseException, commits: bool
) -> None:
    joined = transactional(propagation=how, name="import_day", no_rollback_for=Base)
    await joined_failure(place, run, joined, error, commits)
