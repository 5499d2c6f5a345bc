"""typer: it reads the parameters from the annotations, and must find them through the decorator."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from tests.conftest import SqliteJudge
from tests.frameworks.work import Transfer, committed, database, in_event_loop, work
from tests.notes import Boom, write
from txkit import Database, transactional


@pytest.fixture
def db(sqlite_judge: SqliteJudge) -> Iterator[Database]:
    with database(sqlite_judge) as one:
        yield one


class Kind(StrEnum):
    PLAIN = "plain"
    LOUD = "loud"


def parsed(value: str) -> str:
    return value.strip().lower()


async def add(
    text: Annotated[str, typer.Argument(help="What it says.", parser=parsed)],
    path: Path = Path("notes.txt"),
    kind: Kind = Kind.PLAIN,
    count: Annotated[int, typer.Option("--count", "-c", min=1)] = 1,
    tags: Annotated[list[str] | None, typer.Option("--tag")] = None,
    loud: bool = False,
) -> None:
    """Add a note COUNT times."""
    print(repr((text, path, kind, count, tags, loud)))


def as_app(function: Callable[..., Any]) -> typer.Typer:
    app = typer.Typer()
    app.command()(in_event_loop(function))
    return app


def test_parameters_and_help_are_those_of_the_undecorated_function() -> None:
    decorated, plain = as_app(transactional(add)), as_app(add)

    def described(app: typer.Typer) -> list[tuple[Any, ...]]:
        params = typer.main.get_command(app).params
        return [(one.name, one.opts, one.default, one.required) for one in params]

    assert described(decorated) == described(plain)
    assert [one[0] for one in described(decorated)][:6] == list(add.__annotations__)[:6]
    shown, expected = (CliRunner().invoke(one, ["--help"]) for one in (decorated, plain))
    assert "Add a note COUNT times." in shown.output
    assert shown.output == expected.output


def test_arguments_arrive_with_their_types() -> None:
    args = [" TEA ", "--path", "a.txt", "--kind", "loud", "-c", "2", "--tag", "x", "--loud"]
    shown, expected = (
        CliRunner().invoke(as_app(one), args).output for one in (transactional(add), add)
    )
    assert shown.startswith("('tea', PosixPath('a.txt'), <Kind.LOUD: 'loud'>, 2, ['x'], True)")
    assert shown == expected


def test_arguments_that_are_refused_never_reach_the_unit() -> None:
    result = CliRunner().invoke(as_app(transactional(add)), ["tea", "--count", "0"])
    assert result.exit_code == 2


def test_command_has_committed_when_its_app_hears_of_it(
    db: Database, sqlite_judge: SqliteJudge
) -> None:
    seen: list[tuple[object, list[str]]] = []

    def look(result: object) -> None:
        seen.append((result, committed(sqlite_judge)))

    app = typer.Typer(result_callback=look)

    @app.callback()
    def start(context: typer.Context) -> None:
        context.obj = db

    @app.command("add")
    @in_event_loop
    @transactional
    async def command(context: typer.Context, text: str) -> str:
        done = await work(context.obj, text)
        seen.append(("inside", committed(sqlite_judge)))
        return done

    assert CliRunner().invoke(app, ["add", "tea"]).exit_code == 0
    assert seen == [("inside", []), ("tea done", ["tea"])]
    assert isinstance(CliRunner().invoke(app, ["add", "bad"]).exception, Boom)
    assert committed(sqlite_judge) == ["tea"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (typer.Exit(0), 0),
        (typer.Exit(4), 4),
        (typer.Abort(), 1),
        (typer.BadParameter("no"), 2),
        (SystemExit(0), 0),
        (Boom(), 1),
    ],
    ids=repr,
)
def test_what_leaves_as_an_exception_rolls_back_and_is_typers_exit_code(
    db: Database, sqlite_judge: SqliteJudge, error: BaseException, code: int
) -> None:
    @transactional
    async def command(text: str) -> None:
        await write(db, text)
        raise error

    assert CliRunner().invoke(as_app(command), ["note"]).exit_code == code
    assert committed(sqlite_judge) == []


def good_exit(_result: object, error: BaseException | None) -> bool:
    return error is None or (isinstance(error, typer.Exit) and error.exit_code == 0)


@pytest.mark.parametrize(("code", "texts"), [("0", ["0"]), ("3", [])])
def test_outcome_rule_tells_a_good_exit_from_a_bad_one(
    db: Database, sqlite_judge: SqliteJudge, code: str, texts: list[str]
) -> None:
    @transactional(outcome=good_exit)
    async def command(text: str) -> None:
        await write(db, text)
        raise typer.Exit(int(text))

    assert CliRunner().invoke(as_app(command), [code]).exit_code == int(code)
    assert committed(sqlite_judge) == texts


def test_command_of_an_object_is_decorated_as_its_method(
    db: Database, sqlite_judge: SqliteJudge
) -> None:
    class Notes:
        @transactional
        async def add(self, text: Annotated[str, typer.Argument()], times: int = 1) -> None:
            for _ in range(times):
                await write(db, text)

    result = CliRunner().invoke(as_app(Notes().add), ["tea", "--times", "2"])
    assert result.exit_code == 0
    assert committed(sqlite_judge) == ["tea", "tea"]


def test_ctrl_c_rolls_back(db: Database, sqlite_judge: SqliteJudge) -> None:
    @transactional
    async def command(text: str) -> None:
        await write(db, text)
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    assert CliRunner().invoke(as_app(command), ["note"]).exit_code == 130
    assert committed(sqlite_judge) == []


def test_command_without_a_decorator_is_not_told(db: Database, sqlite_judge: SqliteJudge) -> None:
    """It is the event loop's task, in which typer is not seen; a warning would be an error."""
    transfer = Transfer(db, sqlite_judge)

    async def command() -> None:
        await transfer.debit()
        await transfer.credit()

    assert CliRunner().invoke(as_app(command)).exit_code == 0
    assert committed(sqlite_judge) == ["debit", "credit"]
