"""What the command line prints: reports on stdout, remarks on stderr."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from samples.ledger.orders import show_cents

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from samples.ledger.books import Books
    from samples.ledger.importing import LineNumbers, Result

LARGE_FILE_BYTES = 200_000


@contextmanager
def progress_of(file: Path) -> Generator[Callable[[int], None]]:
    """Show a progress bar, for a large file on a terminal; give what moves it by so many bytes."""
    size_bytes = file.stat().st_size
    console = _remarks()
    shown = console.is_terminal and size_bytes >= LARGE_FILE_BYTES
    with Progress(console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(file.name, total=size_bytes)
        yield lambda step: bar.advance(task, step)


def show_import(file: Path, result: Result) -> None:
    """Say what was posted, and what was refused and why."""
    console = _reports()
    console.print(f"Import of {escape(str(file))}")
    for label, numbers in (
        ("posted", result.posted),
        ("already posted", result.posted_before),
        ("refused", result.refused),
    ):
        console.print(f"  {label + ':':<15} {_lines(numbers)}")
    for number, reason in result.reasons:
        console.print(f"    line {number}: {escape(reason)}")
    if result.refused.count > len(result.reasons):
        console.print("    ... and others")


def show_interrupted(file: Path, result: Result) -> None:
    """Say how far an import came, and how to go on."""
    posted, refused = result.posted.count + result.posted_before.count, result.refused.count
    _remarks().print(
        f"Interrupted. {posted} lines of {escape(str(file))} are posted, {refused} were refused."
        " Run the same command again to go on: what is posted is not posted twice.",
    )


def show_books(books: Books) -> None:
    """Show the balances, the audit trail's totals, and whether the books balance."""
    console = _reports()
    table = Table("account", box=None)
    table.add_column("balance", justify="right")
    for name, cents in books.balances.items():
        table.add_row(escape(name), show_cents(cents))
    console.print(table)
    attempts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(books.attempts.items()))
    console.print(
        f"{books.transfers} transfers; attempts on record (malformed lines are none):"
        f" {attempts or 'none'}"
    )
    if books.balance:
        console.print(
            "The books balance: all postings sum to 0.00, and so do each transfer's;"
            " every account is the sum of its postings."
        )
        return
    console.print(
        "THE BOOKS DO NOT BALANCE: all postings sum to"
        f" {show_cents(books.sum_of_postings_cents)}; wrong transfers:"
        f" {books.unbalanced_transfers}; wrong accounts: {books.wrong_balances}",
        markup=False,
    )


def _remarks() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _reports() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _lines(numbers: LineNumbers) -> str:
    if not numbers.count:
        return "0"
    return f"{numbers.count} ({'line' if numbers.count == 1 else 'lines'} {numbers})"
