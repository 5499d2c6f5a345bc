"""``nested`` is judged by its own rules: what they keep, and what they can't. On both backends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy.exc import IntegrityError
from starlette.responses import JSONResponse

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_nested import OPEN_BEFORE, begin
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import transactional


def _broken(_result: object, _error: BaseException | None) -> bool:
    raise ZeroDivisionError


@BOTH_FACES
@OPEN_BEFORE
@pytest.mark.parametrize(
    ("options", "error", "keeps"),
    [
        ({"no_rollback_for": Boom}, Boom(), True),
        ({"no_rollback_for": Exception, "rollback_for": Boom}, Boom(), False),
        ({"no_rollback_for": Boom}, ExceptionGroup("", [Boom(), Boom()]), True),
        ({"no_rollback_for": Boom}, ExceptionGroup("", [Boom(), KeyError()]), False),
        ({"no_rollback_for": Exception}, asyncio.CancelledError(), False),
        ({"outcome": lambda _, error: isinstance(error, Boom)}, Boom(), True),
        ({"outcome": lambda _, error: isinstance(error, Boom)}, KeyError(), False),
        ({"outcome": lambda *_: True}, asyncio.CancelledError(), False),
        ({"outcome": _broken}, Boom(), False),
        ({}, HTTPException(303), False),  # the HTTP rule is the boundary's
    ],
)
async def test_own_rules_judge_an_exception(
    place: Place,
    run: Run,
    opened: bool,
    options: dict[str, Any],
    error: BaseException,
    keeps: bool,
) -> None:
    async def body() -> None:
        await write(place.db, "inner")
        raise error

    async with transactional():
        kept = await begin(place, opened)
        with pytest.raises(type(error)) as caught:
            await run(transactional(propagation="nested", **options), body)
        assert caught.value is error
        await write(place.db, "after")
    assert await place.texts() == [*kept, *["inner"] * keeps, "after"]


@pytest.mark.parametrize(
    ("options", "result", "keeps"),
    [
        ({"outcome": lambda result, _: result == "keep"}, "keep", True),
        ({"outcome": lambda result, _: result == "keep"}, "drop", False),
        ({}, JSONResponse({}, 500), True),  # the HTTP rule is the boundary's
    ],
)
async def test_own_outcome_rule_judges_a_result(
    place: Place, options: dict[str, Any], result: object, keeps: bool
) -> None:
    @transactional(propagation="nested", **options)
    async def body() -> object:
        await write(place.db, "inner")
        return result

    async with transactional():
        await write(place.db, "before")
        assert await body() is result
        await write(place.db, "after")
    assert await place.texts() == ["before", *["inner"] * keeps, "after"]


@BOTH_FACES
@OPEN_BEFORE
@pytest.mark.parametrize(
    "options",
    [{"no_rollback_for": Boom}, {"outcome": lambda *_: True}],
    ids=["no_rollback_for", "outcome"],
)
async def test_database_error_wins_over_its_rules(
    place: Place, run: Run, opened: bool, options: dict[str, Any]
) -> None:
    """The exception leaves unchanged, with a note; its caller's transaction is unharmed."""

    async def body() -> None:
        await write(place.db, "lost")
        with pytest.raises(IntegrityError):
            await ask(place.db, "INSERT INTO note (text) VALUES (NULL)")
        raise error

    error = Boom()
    async with transactional():
        kept = await begin(place, opened)
        with pytest.raises(Boom) as caught:
            await run(transactional(propagation="nested", **options), body)
        assert caught.value is error
        assert any("rolled back although" in note for note in error.__notes__)
        await write(place.db, "after")
    assert await place.texts() == [*kept, "after"]
