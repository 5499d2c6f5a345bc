"""click: ``@transactional`` next to the ``async def``, a plain function between it and click."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.conftest import SqliteJudge
from tests.frameworks.work import Transfer, committed, database, in_event_loop
from tests.notes import Boom, write
from txkit import Database, in_transaction, new_context, transactional


@pytest.fixture
def db(sqlite_judge: SqliteJudge) -> Iterator[Database]:
    with database(sqlite_judge) as one:
        yield one


def invoke(function: Callable[..., Any], *args: str) -> Result:
    """Run a coroutine function as a command with the argument TEXT."""
    command = click.argument("text", default="note")(in_event_loop(function))
    return CliRunner().invoke(click.command("add")(command), args)


async def add(text: str, count: int, tags: tuple[str, ...]) -> None:
    """Add a note COUNT times."""


def as_command(function: Callable[..., Any]) -> click.Command:
    plain = in_event_loop(function)
    plain = click.option("--count", type=click.IntRange(1), default=1, show_default=True)(plain)
    plain = click.option("--tag", "tags", multiple=True, help="A word of its own.")(plain)
    return click.command()(click.argument("text")(plain))


def test_parameters_and_help_are_those_of_the_undecorated_function() -> None:
    decorated, plain = as_command(transactional(add)), as_command(add)

    def info(command: click.Command) -> object:
        return command.to_info_dict(click.Context(command, info_name="add"))

    assert info(decorated) == info(plain)
    shown, expected = (CliRunner().invoke(one, ["--help"]) for one in (decorated, plain))
    assert "Add a note COUNT times." in shown.output
    assert shown.output == expected.output


def test_arguments_that_are_refused_never_reach_the_unit() -> None:
    result = CliRunner().invoke(as_command(transactional(add)), ["tea", "--count", "0"])
    assert result.exit_code == 2
    assert "0 is not in the range" in result.output


def test_command_has_committed_when_its_group_hears_of_it(
    db: Database, sqlite_judge: SqliteJudge
) -> None:
    seen: list[tuple[object, list[str]]] = []

    @click.group()
    @click.pass_context
    def cli(context: click.Context) -> None:
        context.obj = db

    @cli.result_callback()
    def look(result: object) -> None:
        seen.append((result, committed(sqlite_judge)))

    @cli.command("add")
    @click.argument("text")
    @click.pass_obj
    @in_event_loop
    @transactional
    async def command(db: Database, text: str) -> int:
        await write(db, text)
        seen.append(("inside", committed(sqlite_judge)))
        return len(text)

    result = CliRunner().invoke(cli, ["add", "tea"])
    assert result.exit_code == 0
    assert seen == [("inside", []), (3, ["tea"])]


def leave(context: click.Context) -> None:
    context.exit(0)


def fail(context: click.Context) -> None:
    context.fail("no")


def abort(context: click.Context) -> None:
    context.abort()


def refuse(_context: click.Context) -> None:
    message = "no"
    raise click.ClickException(message)


def leave_python(_context: click.Context) -> None:
    raise SystemExit(0)


def go_wrong(_context: click.Context) -> None:
    raise Boom


@pytest.mark.parametrize(
    ("end", "code"),
    [(leave, 0), (leave_python, 0), (go_wrong, 1), (refuse, 1), (abort, 1), (fail, 2)],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_what_leaves_as_an_exception_rolls_back_and_is_clicks_exit_code(
    db: Database, sqlite_judge: SqliteJudge, end: Callable[[click.Context], None], code: int
) -> None:
    @transactional
    async def command(text: str) -> None:
        await write(db, text)
        end(click.get_current_context())

    assert invoke(command).exit_code == code
    assert committed(sqlite_judge) == []


def good_exit(_result: object, error: BaseException | None) -> bool:
    return error is None or (isinstance(error, click.exceptions.Exit) and error.exit_code == 0)


@pytest.mark.parametrize(("code", "texts"), [("0", ["0"]), ("3", [])])
def test_outcome_rule_tells_a_good_exit_from_a_bad_one(
    db: Database, sqlite_judge: SqliteJudge, code: str, texts: list[str]
) -> None:
    @transactional(outcome=good_exit)
    async def command(text: str) -> None:
        await write(db, text)
        click.get_current_context().exit(int(text))

    assert invoke(command, code).exit_code == int(code)
    assert committed(sqlite_judge) == texts


def test_ctrl_c_rolls_back(db: Database, sqlite_judge: SqliteJudge) -> None:
    ended: list[BaseException] = []

    @transactional
    async def command(text: str) -> None:
        await write(db, text)
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    result = invoke(command)
    assert (result.exit_code, result.output.strip()) == (1, "Aborted!")
    assert len(ended) == 1
    assert committed(sqlite_judge) == []


def test_commands_that_are_invoked_one_after_the_other_are_units_apart(
    db: Database, sqlite_judge: SqliteJudge
) -> None:
    @click.group(chain=True)
    def cli() -> None:
        pass

    @cli.command("add")
    @click.argument("text")
    @in_event_loop
    @transactional
    async def command(text: str) -> None:
        assert not in_transaction()
        await write(db, text)
        if text == "bad":
            raise Boom

    result = CliRunner().invoke(cli, ["add", "good", "add", "bad"])
    assert isinstance(result.exception, Boom)
    assert committed(sqlite_judge) == ["good"]


def test_work_that_shall_stay_whatever_becomes_of_the_command_is_a_unit_of_its_own(
    db: Database, sqlite_judge: SqliteJudge
) -> None:
    @transactional
    async def command(text: str) -> None:
        await new_context(write)(db, "log")
        await write(db, text)
        raise Boom

    assert isinstance(invoke(command).exception, Boom)
    assert committed(sqlite_judge) == ["log"]


def test_command_without_a_decorator_is_not_told(db: Database, sqlite_judge: SqliteJudge) -> None:
    """It is the event loop's task, in which click is not seen; a warning would be an error."""
    transfer = Transfer(db, sqlite_judge)

    async def command(text: str) -> None:
        await transfer.debit()
        await transfer.credit()

    assert invoke(command).exit_code == 0
    assert committed(sqlite_judge) == ["debit", "credit"]


class Compiled(Coroutine[Any, Any, None]):
    """A coroutine that has no frame, as those of a compiled server."""

    def __init__(self, python: Coroutine[Any, Any, None]) -> None:
        self.python = python

    def __await__(self) -> Any:
        raise AssertionError

    def send(self, value: Any) -> Any:
        return self.python.send(value)

    def throw(self, *error: Any) -> Any:
        return self.python.throw(*error)


def test_what_a_server_calls_that_a_command_runs_is_not_taken_for_the_command(
    db: Database, sqlite_judge: SqliteJudge
) -> None:
    transfer = Transfer(db, sqlite_judge)

    async def call() -> None:
        await transfer.debit()
        await transfer.credit()

    async def command(text: str) -> None:
        await asyncio.get_running_loop().create_task(Compiled(call()))

    result = invoke(command)
    assert result.exit_code == 0, result.exception
    assert committed(sqlite_judge) == ["debit", "credit"]
