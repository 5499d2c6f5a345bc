"""pydantic's ``validate_call``: a wrong argument is refused before the unit, in the words of pydantic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Protocol, runtime_checkable

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, validate_call

from tests.conftest import PostgresJudge
from tests.frameworks.work import SideBySide, work
from tests.notes import Boom, write
from txkit import Database, UnexpectedRollbackError, transactional


class Note(BaseModel):
    text: str
    stars: int = 0


async def add(note: Note, count: Annotated[int, Field(gt=0)] = 1, *, tag: str | None = None) -> str:
    """Add a note COUNT times."""
    return f"{note!r} {count!r} {tag!r}"


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (({"text": "tea", "stars": "3"}, "2"), {"tag": "x"}),
    (({"stars": "many"}, 0), {}),
    ((), {"count": "one", "tag": 4}),
    (({"text": "tea"},), {"unknown": 1}),
]


async def told(function: Callable[..., Any], *args: Any, **kwargs: Any) -> object:
    """What the caller gets: the answer, or what pydantic says is wrong."""
    try:
        return await function(*args, **kwargs)
    except ValidationError as error:
        return error.title, error.errors(include_url=False)


@pytest.mark.parametrize(("args", "kwargs"), CALLS, ids=str)
async def test_arguments_are_parsed_and_refused_as_in_the_undecorated_function(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    decorated, plain = validate_call(transactional(add)), validate_call(add)
    assert await told(decorated, *args, **kwargs) == await told(plain, *args, **kwargs)


def test_schema_is_that_of_the_undecorated_function() -> None:
    assert TypeAdapter(transactional(add)).json_schema() == TypeAdapter(add).json_schema()


def test_annotations_are_seen_when_a_protocol_was_asked_about_the_function() -> None:
    @runtime_checkable
    class Named(Protocol):
        __name__: str

    decorated = transactional(add)
    assert isinstance(decorated, Named)
    assert TypeAdapter(decorated).json_schema() == TypeAdapter(add).json_schema()


async def test_refused_argument_never_reaches_the_unit_and_dooms_no_caller(
    db: Database, pg: PostgresJudge
) -> None:
    @validate_call
    @transactional
    async def inner(count: int) -> None:
        await write(db, str(count))

    @transactional
    async def outer() -> None:
        await inner("1")  # type: ignore[arg-type]
        with pytest.raises(ValidationError):
            await inner("one")  # type: ignore[arg-type]

    await outer()
    assert await pg.texts() == ["1"]


async def test_refused_argument_dooms_the_caller_with_the_decorators_swapped(
    db: Database, pg: PostgresJudge
) -> None:
    @transactional
    @validate_call
    async def inner(count: int) -> None:
        await write(db, str(count))

    @transactional
    async def outer() -> None:
        await write(db, "outer")
        with pytest.raises(ValidationError):
            await inner("one")  # type: ignore[arg-type]

    with pytest.raises(UnexpectedRollbackError, match="inner"):
        await outer()
    assert await pg.texts() == []


async def test_refused_result_is_found_after_the_commit_and_before_it_with_the_decorators_swapped(
    db: Database, pg: PostgresJudge
) -> None:
    async def add(text: str) -> int:
        await write(db, text)
        return "no number"  # type: ignore[return-value]

    checked = validate_call(validate_return=True)
    with pytest.raises(ValidationError):
        await checked(transactional(add))("after")
    with pytest.raises(ValidationError):
        await transactional(checked(add))("before")
    assert await pg.texts() == ["after"]


class Service:
    def __init__(self, db: Database) -> None:
        self.db = db

    @validate_call
    @transactional
    async def add(self, text: str, count: Annotated[int, Field(lt=10)]) -> None:
        for _ in range(count):
            await write(self.db, text)

    @classmethod
    @validate_call(config={"arbitrary_types_allowed": True})
    @transactional
    async def make(cls, db: Database, text: str) -> str:
        await write(db, text)
        return cls.__name__

    @staticmethod
    @validate_call(config={"arbitrary_types_allowed": True})
    @transactional
    async def put(db: Database, count: int) -> None:
        await write(db, str(count))


async def test_methods_are_validated_and_are_units(db: Database, pg: PostgresJudge) -> None:
    await Service(db).add("method", "1")  # type: ignore[arg-type]
    assert await Service.make(db, "class method") == "Service"
    await Service.put(db, "2")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        await Service(db).add("method", 10)
    assert await pg.texts() == ["method", "class method", "2"]


async def test_stream_is_validated_when_it_is_called_and_commits_at_its_end(
    db: Database, pg: PostgresJudge
) -> None:
    @validate_call
    @transactional
    async def numbers(count: int) -> AsyncIterator[int]:
        for number in range(count):
            await write(db, str(number))
            yield number

    assert [one async for one in numbers("2")] == [0, 1]  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        numbers("two")  # type: ignore[arg-type]
    assert await pg.texts() == ["0", "1"]


async def test_good_call_is_committed_and_bad_one_rolled_back(
    db: Database, pg: PostgresJudge
) -> None:
    function = validate_call(config={"arbitrary_types_allowed": True})(transactional(work))
    assert await function(db, "good") == "good done"
    assert await pg.texts() == ["good"]
    with pytest.raises(Boom):
        await function(db, "bad")
    assert await pg.texts() == ["good"]


async def test_calls_side_by_side_do_not_meet(db: Database, pg: PostgresJudge) -> None:
    function = validate_call(transactional(SideBySide(db).work))
    results = await asyncio.gather(function("good"), function("bad"), return_exceptions=True)
    assert results[0] == "good done"
    assert isinstance(results[1], Boom)
    assert await pg.texts() == ["good"]
