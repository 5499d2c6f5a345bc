"""``python3 -m samples.postgresql PROGRAM``: run a Python program on a PostgreSQL of its own.

The server is the test suite's: it comes out of a wheel, needs nothing installed
by hand, holds an empty database, and is gone when the program ends. The program
finds what the pages of ``docs/`` expect: DATABASE_URL, and an empty folder.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from samples import _environment

_HELP = """\
usage: python3 -m samples.postgresql ARGUMENTS OF PYTHON

Start a PostgreSQL with an empty database, run Python with these arguments in an
empty folder, stop the server. Its address is in DATABASE_URL, and in the
variables of the samples:

  python3 -m samples.postgresql page.py
  python3 -m samples.postgresql -m asyncio
  python3 -m samples.postgresql -m samples.usage.options
  python3 -m samples.postgresql -m samples.ledger import samples/ledger/transfers.csv

The first time it installs what it needs into .venv/ of this clone, over the
network, about a minute. To use a server of yours, set DATABASE_URL and run the
program without this.
"""
_VARIABLES = ("DATABASE_URL", "LEDGER_URL", "TXKIT_SAMPLE_URL")
_RUN = "import sys; from samples.postgresql import run; sys.exit(run(sys.argv[1:]))"


def run(arguments: list[str]) -> int:
    """Run this Python beside a server of its own; give the exit code."""
    postgres = importlib.import_module("tests.server")  # in a clone, in its environment only
    os.environ.pop("TXKIT_TEST_DATABASE_URL", None)  # that one is nobody's own
    command = [sys.executable, *map(_found_from_anywhere, arguments)]
    server = postgres.start()
    try:
        environment = {**os.environ, "PYTHONPATH": str(_environment.ROOT)}
        environment |= dict.fromkeys(_VARIABLES, str(server.admin_url))
        with tempfile.TemporaryDirectory(prefix="txkit-") as folder:
            return subprocess.call(command, env=environment, cwd=folder)
    except KeyboardInterrupt:
        return 130
    finally:
        server.stop()


def _found_from_anywhere(argument: str) -> str:
    """Make the name of a file an absolute one."""
    return str(Path(argument).resolve()) if Path(argument).is_file() else argument


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1] in {"-h", "--help"}:
        print(_HELP, end="", file=sys.stdout if sys.argv[1:] else sys.stderr)
        sys.exit(0 if sys.argv[1:] else 2)
    _environment.run("test", ["-c", _RUN, *sys.argv[1:]])
