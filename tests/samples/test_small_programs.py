"""quickstart and the pages of usage say what a second connection sees, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import PostgresJudge
from tests.samples.programs import ROOT, run

PAGES = {
    "basic": """
        before the return: nothing
        after the return: basic, basic, from a function below
    """,
    "atomic": """
        after the block: 1: in the block
        after the atomic function: 1: in the block, 2: in the atomic function
        before the return: 1: in the block, 2: in the atomic function
        after the return: 1: in the block, 2: in the atomic function, 3: in the rest
    """,
    "manual_commit_and_close": """
        after session.commit(): 1: committed on the session
        after commit and close: 1: committed on the session, 2: committed by the function
        before the return: 1: committed on the session, 2: committed by the function
        after the return: 1: committed on the session, 2: committed by the function, \
3: left to the boundary, 4: left to the boundary
    """,
    "several_sessions_side_by_side": """
        after the gather: 1: the context's session, 2: decorated with new_context, \
3: run_in_new_ctx, 4: without a context, 5: without a context, by hand
        after the return: 1: the context's session, 2: decorated with new_context, \
3: run_in_new_ctx, 4: without a context, 5: without a context, by hand, \
6: the context's session again
    """,
    "rollback_by_exception": """
        after OutOfStockError left handler: nothing
        after OutOfStockError left tolerant_handler: kept
    """,
    "rollback_by_http_exception": """
        after /good answered 200: good
        after /failing answered 500: good
        after /refusing answered 409: good
        after /moved answered 303: good, moved
    """,
    "rollback_by_hand": """
        after two rollbacks by hand: kept
        rehearsal(): it would work
        after the rehearsal: kept
    """,
    "hooks": """
        tea: committed
        mail: tea
        after tea was ordered: tea
        milk: rolled_back
        after PermissionError left order_and_pay: tea
        unreachable: committed
        order 'unreachable': no mail server
        after AfterCommitError left order: tea, unreachable
    """,
    "outbox": """
        after two orders: milk, tea
        mail 1: thank you for ordering tea
        mail 2: thank you for ordering milk
        after the postman's round: milk, tea
    """,
    "options": """
        the report counts 0, and again 0
        after the report: written during the report
        after the database refused to write: written during the report
        after TransactionTimeoutError left reserve: written during the report
    """,
}


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_quickstart_commits_one_order_and_rolls_back_the_other(tmp_path: Path) -> None:
    ran = run(tmp_path, "samples.quickstart")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert lines(ran.stdout) == [
        "committed:   ['tea', 'milk']",
        "rolled back: ['tea', 'milk'] (an order needs items)",
    ]
    assert len((ROOT / "samples" / "quickstart.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("page", PAGES)
def test_usage_page_on_sqlite_shows_what_is_committed(page: str, tmp_path: Path) -> None:
    ran = run(tmp_path, f"samples.usage.{page}")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert lines(ran.stdout) == lines(PAGES[page])


@pytest.mark.parametrize("page", PAGES)
async def test_usage_page_on_postgresql_shows_what_is_committed(
    page: str, tmp_path: Path, pg: PostgresJudge
) -> None:
    ran = run(tmp_path, f"samples.usage.{page}", TXKIT_SAMPLE_URL=pg.url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert lines(ran.stdout) == lines(PAGES[page])
    seen = await pg.texts("txkit_usage_example")
    last = [line for line in lines(PAGES[page]) if line.startswith("after")][-1]
    assert ", ".join(sorted(seen)) in last


def test_every_usage_page_is_run() -> None:
    pages = {path.stem for path in (ROOT / "samples" / "usage").glob("*.py")}
    assert pages - {"__init__", "database"} == set(PAGES)
