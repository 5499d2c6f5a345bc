"""The ledger on the command line: ``python -m samples.ledger --help``.

A command is a coroutine function, and ``with_ledger`` makes it one that click
can call. Where a command is one unit, ``@transactional`` stands next to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Concatenate, ParamSpec

import click
from sqlalchemy.exc import SQLAlchemyError

from samples.ledger import printing
from samples.ledger.books import read_books
from samples.ledger.csvfile import FileFormatError, read_lines
from samples.ledger.database import DEFAULT_URL, URL_VARIABLE, open_database
from samples.ledger.importing import Result, import_lines
from samples.ledger.services import Ledger
from samples.ledger.tables import make_tables
from txkit import transactional

P = ParamSpec("P")

REFUSED, UNUSABLE, UNBALANCED, INTERRUPTED = 1, 2, 3, 130


def with_ledger(
    function: Callable[Concatenate[Ledger, P], Coroutine[object, object, int]],
) -> Callable[..., None]:
    """Run a coroutine function with the ledger at a URL; what it returns is the exit code."""

    async def run(url: str, *args: P.args, **kwargs: P.kwargs) -> int:
        _cancel_on_ctrl_c()
        async with open_database(url) as database:
            await make_tables(database)
            return await function(Ledger(database), *args, **kwargs)

    @functools.wraps(function)
    def command(url: str, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = asyncio.run(run(url, *args, **kwargs))
        except (KeyboardInterrupt, asyncio.CancelledError):  # noqa: ASYNC103 - the loop has ended
            code = INTERRUPTED
        except (SQLAlchemyError, FileFormatError, OSError, ValueError) as error:
            click.echo(f"Error: {getattr(error, 'orig', None) or error}", err=True)
            code = UNUSABLE
        sys.exit(code)

    return command


def _cancel_on_ctrl_c() -> None:
    """Let the first Ctrl-C cancel the command; the impatient ones after it change nothing.

    ``asyncio.run`` would raise the second one wherever the event loop stands. What is in flight
    is ended in milliseconds, and in a bounded time whatever happens: it need not be hurried.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        task.cancel()

    with contextlib.suppress(NotImplementedError):  # Windows: asyncio.run's own way
        loop.add_signal_handler(signal.SIGINT, interrupt)


@click.group()
@click.option(
    "--database",
    envvar=URL_VARIABLE,
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="SQLAlchemy URL of a PostgreSQL or SQLite database; its tables are made if missing.",
)
@click.pass_context
def main(context: click.Context, database: str) -> None:
    """Keep a small double-entry ledger.

    \b
    Exit codes:
      0    everything was posted, now or before
      1    some lines were refused (the report says which, and why)
      2    the command, the file or the database can't be used
      3    the books don't balance, which must never happen
      130  interrupted; what was posted stays, run it again to go on
    """
    context.obj = database


@main.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
@with_ledger
async def import_file(ledger: Ledger, file: Path) -> int:
    """Post the transfers of a CSV FILE, each line by itself.

    The columns are key, source, target, amount and text. A line whose key was
    posted before with the same content is left alone, so that an import may be
    interrupted and started again.
    """
    result = Result()
    try:
        with printing.progress_of(file) as advance:
            await import_lines(ledger, read_lines(file), result, advance)
    except asyncio.CancelledError:
        printing.show_interrupted(file, result)
        raise
    books = await read_books(ledger.database)
    printing.show_import(file, result)
    printing.show_books(books)
    if not books.balance:
        return UNBALANCED
    return REFUSED if result.refused.count else 0


@main.command()
@click.pass_obj
@with_ledger
@transactional
async def report(ledger: Ledger) -> int:
    """Show the accounts, and whether the books balance."""
    books = await read_books(ledger.database)
    printing.show_books(books)
    return 0 if books.balance else UNBALANCED


@main.command("open")
@click.argument("name")
@click.pass_obj
@with_ledger
@transactional
async def open_account(ledger: Ledger, name: str) -> int:
    """Open the account NAME."""
    opened = await ledger.open_account(name)
    click.echo(f"{name}: {'opened' if opened else 'was open already'}")
    return 0
