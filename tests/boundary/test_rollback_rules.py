"""``rollback_for``, ``no_rollback_for``, ``outcome``: what a second connection sees. On both backends.

The rules themselves are tested in tests/unit/test_outcome.py; here, that boundaries and
joined calls follow them, and what is stronger than they are.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    UnexpectedRollbackError,
    atomic,
    db_session,
    new_context,
    rollback_db_session,
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
@pytest.mark.parametrize("opened_by", [transactional, new_context], ids=["transactional", "new"])
async def test_boundary_follows_them(
    place: Place,
    run: Run,
    options: dict[str, Any],
    error: BaseException,
    commits: bool,
    opened_by: Any,
) -> None:
    async def body() -> None:
        await write(place.db, "core")
        (await db_session(place.db)).add(Note(text="orm"))
        raise error

    with pytest.raises(type(error)) as caught:
        await run(opened_by(**options), body)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert caught.value.__cause__ is None
    assert await place.texts() == ["core", "orm"] * commits


@BOTH_FACES
@EVERY_CASE
@pytest.mark.parametrize("how", ["required", "mandatory", "supports"])
async def test_joined_call_dooms_by_its_own(
    place: Place,
    run: Run,
    options: dict[str, Any],
    error: BaseException,
    commits: bool,
    how: str,
) -> None:
    """Scenario: its caller swallows the exception and returns.
    Outcome: the unit commits if the joined call's rules would, else it is doomed by the call."""

    async def body() -> None:
        await write(place.db, "inner")
        raise error

    async def unit() -> None:
        async with transactional():
            with pytest.raises(type(error)):
                await run(transactional(propagation=how, name="import_day", **options), body)

    if commits:
        await unit()
    else:
        with pytest.raises(UnexpectedRollbackError) as caught:
            await unit()
        assert caught.value.__cause__ is error
        assert caught.value.culprit == "import_day"
    assert await place.texts() == ["inner"] * commits


SOFT: dict[str, dict[str, Any]] = {
    "no_rollback_for": {"no_rollback_for": Boom},
    "outcome": {"outcome": lambda *_: True},
}
EVERY_RULE = pytest.mark.parametrize("rule", SOFT)


async def _core(place: Place) -> None:
    await ask(place.db, "INSERT INTO note (text) VALUES (NULL)")


async def _flush(place: Place) -> None:
    session = await db_session(place.db)
    session.add(Note(text=None))  # type: ignore[arg-type]
    await session.flush()


async def _joined(place: Place) -> None:
    await transactional(no_rollback_for=Exception)(_core)(place)


async def _raw(place: Place) -> None:
    session = await db_session(place.db)
    await (await session.connection()).exec_driver_sql("INSERT INTO note (text) VALUES (NULL)")


MISTAKES = {"core": _core, "flush": _flush, "joined": _joined, "driver sql": _raw}


@BOTH_FACES
@EVERY_RULE
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_swallowed_database_error_is_stronger(
    place: Place, run: Run, rule: str, mistake: str
) -> None:
    """The exception would commit, but the transaction can't: it leaves unchanged, with a note."""

    async def body() -> None:
        await write(place.db, "lost")
        with pytest.raises(IntegrityError):
            await MISTAKES[mistake](place)
        raise error

    error = Boom()
    with pytest.raises(Boom) as caught:
        await run(transactional(**SOFT[rule]), body)
    assert caught.value is error
    assert any("rolled back although the rules would commit" in one for one in error.__notes__)
    assert await place.texts() == []


@BOTH_FACES
@EVERY_RULE
async def test_database_error_that_leaves_is_not_committed_either(
    place: Place, run: Run, rule: str
) -> None:
    options = SOFT[rule] if rule == "outcome" else {"no_rollback_for": IntegrityError}
    with pytest.raises(IntegrityError):
        await run(transactional(**options), lambda: _core(place))
    assert await place.texts() == []


@BOTH_FACES
@EVERY_RULE
@pytest.mark.parametrize("by", ["savepoint", "rollback"])
async def test_database_error_that_was_undone_is_not(
    place: Place, run: Run, rule: str, by: str
) -> None:
    async def body() -> None:
        if by == "savepoint":
            await write(place.db, "kept")
            with pytest.raises(IntegrityError):
                async with atomic(place.db, current_transaction="savepoint"):
                    await _core(place)
        else:
            with pytest.raises(IntegrityError):
                await _core(place)
            await rollback_db_session(place.db)
            await write(place.db, "kept")
        raise Boom

    with pytest.raises(Boom) as caught:
        await run(transactional(**SOFT[rule]), body)
    assert not hasattr(caught.value, "__notes__")
    assert await place.texts() == ["kept"]


@BOTH_FACES
@EVERY_RULE
async def test_joined_failure_swallowed_before_is_stronger(
    place: Place, run: Run, rule: str
) -> None:
    @transactional
    async def culprit() -> None:
        raise KeyError

    async def body() -> None:
        await write(place.db, "lost")
        with pytest.raises(KeyError):
            await culprit()
        raise Boom

    with pytest.raises(Boom) as caught:
        await run(transactional(**SOFT[rule]), body)
    assert "culprit" in caught.value.__notes__[0]
    assert await place.texts() == []
