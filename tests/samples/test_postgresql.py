"""A program with a PostgreSQL of its own: python -m samples.postgresql."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from samples.postgresql import run

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from sqlalchemy import text
from txkit import Database, db_session, transactional

db = Database(os.environ["DATABASE_URL"])

@transactional
async def main():
    session = await db_session(db)
    await session.execute(text("CREATE TABLE note (words TEXT)"))
    Path(sys.argv[1]).write_text(os.environ["DATABASE_URL"])

asyncio.run(main())
sys.exit(7)
"""


def test_program_finds_an_empty_server_that_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """*Scenario:* the program makes a table, and runs twice. *Outcome:* both times it is new."""
    monkeypatch.setenv("TXKIT_TEST_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    program, url = tmp_path / "program.py", tmp_path / "url"
    program.write_text(PROGRAM)
    for _ in range(2):
        assert run([str(program), str(url)]) == 7
        with pytest.raises(OSError, match="Connect call failed"):
            asyncio.run(asyncpg.connect(url.read_text()))
