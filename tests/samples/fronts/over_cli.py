"""A client of the command line: each command is a process of its own.

The processes are forked from one that has imported the command line already,
which costs a tenth of starting Python.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import multiprocessing
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from samples.ledger.cli import REFUSED, UNUSABLE, main
from samples.ledger.csvfile import COLUMNS
from tests.samples.fronts.client import Answer, Client, Outcome, Report

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        __name__,
        "sqlalchemy.dialects.postgresql.asyncpg",
        "asyncpg",
        "sqlalchemy.dialects.sqlite.aiosqlite",
        "aiosqlite",
    ]
)


class OverCli(Client):
    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._numbers = itertools.count(1)

    async def submit(self, key: str, source: str, target: str, cents: object) -> Answer:
        amount = f"{cents // 100}.{cents % 100:02}" if isinstance(cents, int) else str(cents)
        file = self._folder / f"order{next(self._numbers)}.csv"
        with file.open("w", newline="") as opened:
            csv.writer(opened).writerows([COLUMNS, [key, source, target, amount, ""]])
        code, said = await self._run("import", str(file))
        if code == REFUSED:
            refused = re.search(r"^    line 2: (.*)$", said, re.MULTILINE)
            assert refused is not None, said
            return Answer(Outcome.REFUSED, refused[1])
        assert code == 0, said
        before = "already posted: 1 (line 2)" in said
        assert before or "posted:         1 (line 2)" in said
        return Answer(Outcome.BEFORE if before else Outcome.DONE)

    async def open_account(self, name: str) -> Answer:
        code, said = await self._run("open", name)
        if code == UNUSABLE:
            return Answer(Outcome.REFUSED, said.removeprefix("Error: ").strip())
        assert code == 0, said
        if said == f"{name}: opened\n":
            return Answer(Outcome.DONE)
        assert said == f"{name}: was open already\n"
        return Answer(Outcome.BEFORE)

    async def balance(self, name: str) -> int | None:
        return (await self.report()).balances.get(name)

    async def report(self) -> Report:
        code, said = await self._run("report")
        rows = re.findall(r"^ *(\S+) +(-?[0-9 ]+\.[0-9]{2}) *$", said, re.MULTILINE)
        transfers = re.search(r"^(\d+) transfers;", said, re.MULTILINE)
        assert transfers is not None, said
        return Report(
            {name: int(re.sub("[ .]", "", amount)) for name, amount in rows},
            int(transfers[1]),
            code == 0 and "The books balance" in said,
        )

    async def _run(self, *arguments: str) -> tuple[int | None, str]:
        output = self._folder / f"output{next(self._numbers)}.txt"
        command = ("--database", self._url, *arguments)
        process = _PROCESSES.Process(target=run_command, args=(command, str(output)))
        process.start()
        await _end_of(process.sentinel)
        process.join()
        code = process.exitcode
        process.close()
        return code, output.read_text()


async def _end_of(sentinel: int) -> None:
    """Wait in this thread: the processes of a program may not be watched by several."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(sentinel)


def run_command(arguments: tuple[str, ...], output: str) -> None:
    """Be the command; what it prints goes into a file."""
    written = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(written, stream)
    main(arguments, prog_name="python -m samples.ledger")


@asynccontextmanager
async def over_cli(url: str, folder: Path) -> AsyncIterator[OverCli]:
    yield OverCli(url, folder)
