"""What the rules decide, seen from a second connection. On both backends."""

from __future__ import annotations

import fastapi
import pytest
from starlette.responses import JSONResponse

from tests.conftest import Place
from tests.notes import Boom, write
from txkit import atomic, transactional


@pytest.mark.parametrize(("status", "rows"), [(200, ["a"]), (302, ["a"]), (404, []), (500, [])])
async def test_returned_response_counts(place: Place, status: int, rows: list[str]) -> None:
    @transactional
    async def handler() -> JSONResponse:
        await write(place.db, "a")
        return JSONResponse({}, status)

    assert (await handler()).status_code == status
    assert await place.texts() == rows


async def test_response_of_a_joined_function_does_not_count(place: Place) -> None:
    @transactional
    async def inner() -> JSONResponse:
        await write(place.db, "a")
        return JSONResponse({}, 500)

    async with transactional():
        await inner()
    assert await place.texts() == ["a"]


@pytest.mark.parametrize(("status", "rows"), [(303, ["a"]), (422, [])])
@pytest.mark.parametrize("kind", ["transactional", "atomic"])
async def test_raised_http_exception_counts(
    place: Place, status: int, rows: list[str], kind: str
) -> None:
    async def handler() -> None:
        await write(place.db, "a")
        raise fastapi.HTTPException(status)

    decorated = transactional(handler) if kind == "transactional" else atomic(place.db)(handler)
    with pytest.raises(fastapi.HTTPException):
        await decorated()
    assert await place.texts() == rows


@pytest.mark.parametrize("as_keyword", [False, True])
async def test_injected_response_that_was_changed_counts(place: Place, as_keyword: bool) -> None:
    @transactional
    async def handler(response: fastapi.Response) -> str:
        await write(place.db, "a")
        response.status_code = 409
        return "body"

    response = fastapi.Response()
    assert await (handler(response=response) if as_keyword else handler(response)) == "body"
    assert await place.texts() == []


async def test_outcome_rule_decides(place: Place) -> None:
    @transactional(outcome=lambda result, error: result == "keep" or isinstance(error, Boom))
    async def unit(result: str, error: Exception | None = None) -> str:
        await write(place.db, result)
        if error is not None:
            raise error
        return result

    await unit("keep")
    await unit("drop")
    with pytest.raises(Boom):
        await unit("raised", Boom())
    with pytest.raises(KeyError):
        await unit("lost", KeyError())
    assert await place.texts() == ["keep", "raised"]


async def test_outcome_rule_that_raises_rolls_back(place: Place) -> None:
    def broken(result: object, error: BaseException | None) -> bool:
        raise ZeroDivisionError

    @transactional(outcome=broken)
    async def unit(error: Exception | None = None) -> None:
        await write(place.db, "lost")
        if error is not None:
            raise error

    with pytest.raises(ZeroDivisionError):
        await unit()
    with pytest.raises(Boom) as caught:
        await unit(Boom())
    assert "outcome rule raised: ZeroDivisionError" in caught.value.__notes__[0]
    assert await place.texts() == []


async def test_failed_commit_under_no_rollback_for_is_attached(place: Place) -> None:
    from tests.boundary.test_atomic import Note
    from txkit import db_session

    @transactional(no_rollback_for=Boom)
    async def unit() -> None:
        (await db_session(place.db)).add(Note(text=None))  # type: ignore[arg-type]
        raise Boom

    with pytest.raises(Boom) as caught:
        await unit()
    assert "the commit failed" in caught.value.__notes__[0]
    assert await place.texts() == []
