"""python -m samples.ledger import: the report, the exit codes, started again, side by side."""

from __future__ import annotations

import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.conftest import PostgresJudge
from tests.samples.conftest import sqlite_rows
from tests.samples.programs import ROOT, run, start

SHIPPED = str(ROOT / "samples" / "ledger" / "transfers.csv")
POSTED = ["2026-001", "2026-002", "2026-003", "2026-004", "2026-008", "2026-009"]
BALANCES = {"alice": 98000, "bob": 15050, "carol": 10001, "external": -123550, "shop": 499}
HEADER = "key,source,target,amount,text\n"


def assert_books_balance(file: Path) -> None:
    assert sqlite_rows(file, "SELECT sum(amount_cents) FROM posting") == [(0,)]
    uneven = (
        "SELECT transfer_key FROM posting GROUP BY transfer_key"
        " HAVING sum(amount_cents) <> 0 OR count(*) <> 2"
    )
    assert sqlite_rows(file, uneven) == []
    sums = "SELECT account, sum(amount_cents) FROM posting GROUP BY account"
    balances = "SELECT name, balance_cents FROM account WHERE balance_cents <> 0"
    nonzero = [row for row in sqlite_rows(file, sums) if row[1] != 0]
    assert sorted(map(repr, nonzero)) == sorted(map(repr, sqlite_rows(file, balances)))


def keys(file: Path) -> list[object]:
    return [key for (key,) in sqlite_rows(file, "SELECT key FROM transfer ORDER BY key")]


def test_shipped_file_is_posted_line_by_line_and_the_report_says_why_not(tmp_path: Path) -> None:
    ran = run(tmp_path, "samples.ledger", "import", SHIPPED)
    assert (ran.returncode, ran.stderr) == (1, "")
    for fact in (
        "posted:         6 (lines 2-5, 11-12)",
        "already posted: 1 (line 9)",
        "refused:        4 (lines 6-8, 10)",
        "line 6: 'carol' has 100.00, 5 000.00 was asked for",
        "line 7: there is no account 'dave'",
        "line 8: malformed: 'ten' is no amount",
        "line 10: key '2026-004' was used for another transfer",
        "external  -1 235.50",
        "The books balance",
    ):
        assert fact in ran.stdout
    file = tmp_path / "ledger.db"
    assert keys(file) == POSTED
    assert dict(sqlite_rows(file, "SELECT name, balance_cents FROM account")) == BALANCES  # type: ignore[arg-type]
    assert_books_balance(file)


def test_second_import_posts_nothing_new_and_records_its_attempts(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    run(tmp_path, "samples.ledger", "import", SHIPPED)
    before = sqlite_rows(file, "SELECT * FROM posting ORDER BY id")
    ran = run(tmp_path, "samples.ledger", "import", SHIPPED)
    assert ran.returncode == 1
    assert "posted:         0\n" in ran.stdout
    assert "already posted: 7 (lines 2-5, 9, 11-12)" in ran.stdout
    assert sqlite_rows(file, "SELECT * FROM posting ORDER BY id") == before
    trail = sqlite_rows(file, "SELECT outcome, count(*) FROM attempt GROUP BY outcome ORDER BY 1")
    assert trail == [("already posted", 8), ("posted", 6), ("refused", 6)]


async def test_shipped_file_on_postgresql_gives_the_same_books(
    tmp_path: Path, pg: PostgresJudge
) -> None:
    ran = run(tmp_path, "samples.ledger", "--database", pg.url, "import", SHIPPED)
    assert ran.returncode == 1
    assert "The books balance" in ran.stdout
    rows = await pg.fetch("SELECT name, balance_cents FROM account")
    assert {row["name"]: row["balance_cents"] for row in rows} == BALANCES
    assert [row["key"] for row in await pg.fetch("SELECT key FROM transfer ORDER BY key")] == POSTED
    assert not (tmp_path / "ledger.db").exists()


def test_import_without_refusals_exits_with_0_now_and_again(tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    good.write_text(HEADER + "a,external,alice,1,\n\nb,alice,bob,0.50,x\n")
    for _ in range(2):
        ran = run(tmp_path, "samples.ledger", "import", str(good))
        assert (ran.returncode, ran.stderr) == (0, "")
    assert keys(tmp_path / "ledger.db") == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "missing.csv"], "does not exist"),
        (["import", "other.csv"], "the first line must be key,source,target,amount,text"),
        (["import"], "Missing argument"),
        (["--database", "mysql://me:secret@host/x", "report"], "txkit speaks PostgreSQL"),
        (["--database", "postgresql://me:secret@127.0.0.1:1/x", "report"], "Error"),
        (["--database", "sqlite:///no/such/folder.db", "report"], "there is no folder"),
    ],
)
def test_what_cannot_be_used_exits_with_2_and_says_why(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    ran = run(tmp_path, "samples.ledger", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "secret" not in ran.stderr + ran.stdout


def test_help_documents_the_exit_codes(tmp_path: Path) -> None:
    ran = run(tmp_path, "samples.ledger", "--help")
    assert ran.returncode == 0
    for code in ("0  ", "1  ", "2  ", "130  "):
        assert f"    {code}" in ran.stdout


def test_report_shows_the_accounts_of_the_database_in_the_environment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    opened = run(tmp_path, "samples.ledger", "open", "dave", LEDGER_URL=url)
    assert (opened.returncode, opened.stdout) == (0, "dave: opened\n")
    ran = run(tmp_path, "samples.ledger", "report", LEDGER_URL=url)
    assert ran.returncode == 0
    assert "dave" in ran.stdout
    assert "The books balance" in ran.stdout


def test_books_that_do_not_balance_exit_with_3(tmp_path: Path) -> None:
    run(tmp_path, "samples.ledger", "import", SHIPPED)
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("UPDATE posting SET amount_cents = amount_cents + 1 WHERE id = 1")
    connection.commit()
    connection.close()
    ran = run(tmp_path, "samples.ledger", "report")
    assert ran.returncode == 3
    assert "THE BOOKS DO NOT BALANCE: all postings sum to 0.01" in ran.stdout


@pytest.mark.parametrize("impatient", [False, True])
def test_interrupted_import_goes_on_where_it_was(impatient: bool, tmp_path: Path) -> None:
    """Ctrl-C in the middle, then again.

    Scenario: an import of 600 lines gets SIGINT, or two, once 20 transfers are committed.
    Outcome: exit code 130 and a word on how to go on; the books balance then, and after a
        second run, which posts what was missing, every key exactly once.
    """
    wanted = ["deposit", *(f"k{number:04}" for number in range(600))]
    large = tmp_path / "large.csv"
    moves = "".join(f"{key},alice,bob,0.01,{key}\n" for key in wanted[1:])
    large.write_text(f"{HEADER}deposit,external,alice,6.00,\n{moves}")
    file = tmp_path / "ledger.db"

    process = start(tmp_path, "samples.ledger", "import", str(large))
    while count_transfers(file) < 20:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    if impatient:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "Run the same command again" in said
    assert "Traceback" not in said
    assert 20 <= len(keys(file)) < len(wanted)
    assert_books_balance(file)

    ran = run(tmp_path, "samples.ledger", "import", str(large))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert keys(file) == sorted(wanted)
    assert_books_balance(file)
    posted = "SELECT count(*), count(DISTINCT key) FROM attempt WHERE outcome = 'posted'"
    assert sqlite_rows(file, posted) == [(601, 601)]


def count_transfers(file: Path) -> int:
    try:
        [(count,)] = sqlite_rows(file, "SELECT count(*) FROM transfer")
    except sqlite3.OperationalError:  # not made yet
        return 0
    assert isinstance(count, int)
    return count


def test_two_imports_at_once_into_a_new_ledger_post_each_line_once(tmp_path: Path) -> None:
    both = [start(tmp_path, "samples.ledger", "import", SHIPPED) for _ in range(2)]
    for process in both:
        _, said = process.communicate()
        assert (process.returncode, said) == (1, "")
    assert keys(tmp_path / "ledger.db") == POSTED
    assert_books_balance(tmp_path / "ledger.db")


def test_demonstration_exits_with_0_twice(tmp_path: Path) -> None:
    for _ in range(2):
        ran = run(tmp_path, "samples.demonstration")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "The books balance" in ran.stdout
        assert [line.strip() for line in ran.stdout.splitlines()[-2:]] == [
            f"{sys.executable} -m samples.ledger --help",
            f"{sys.executable} -m uvicorn --factory samples.ledger.fronts.fastapi_app:create_app",
        ]


def test_demonstration_in_a_folder_of_somebody_else_says_where_to_go(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()  # no file can be opened there, by root neither
    ran = run(tmp_path, "samples.demonstration")
    assert ran.returncode == 2
    assert "copy the clone to a folder of your own" in ran.stderr
