"""A command gets Ctrl-C: its unit is rolled back, or its COMMIT is finished first."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cancellation.watching import MOMENTS, ended, gone, line
from tests.conftest import PostgresJudge
from tests.postgres.test_cancellation import hold_commits, release_commits
from tests.samples.programs import start

EXIT_CODES = {"plain": -signal.SIGINT, "click": 1}


@pytest.fixture
def process(
    tmp_path: Path, pg: PostgresJudge, face: str, moment: str
) -> Iterator[subprocess.Popen[str]]:
    module = "tests.cancellation.command"
    running = start(tmp_path, module, face, moment, DATABASE_URL=pg.url)
    yield running
    if running.poll() is None:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(
    ("face", "moment"), [("plain", "between"), ("plain", "statement"), ("click", "statement")]
)
async def test_before_commit_it_is_rolled_back(
    process: subprocess.Popen[str], pg: PostgresJudge, face: str, moment: str
) -> None:
    assert await line(process) == "written"
    await MOMENTS[moment](pg)
    process.send_signal(signal.SIGINT)
    out, err = await ended(process)
    assert sorted(out.split()) == ["interrupted", "rolled_back"]
    assert process.returncode == EXIT_CODES[face], err
    await gone(pg)
    assert await pg.texts() == []


@pytest.mark.parametrize(("face", "moment"), [("plain", "commit"), ("click", "commit")])
async def test_in_commit_it_is_finished_first(
    process: subprocess.Popen[str], pg: PostgresJudge, face: str
) -> None:
    await hold_commits(pg)
    assert await line(process) == "written"
    await MOMENTS["commit"](pg)
    process.send_signal(signal.SIGINT)
    assert await line(process) == "interrupted"
    assert process.poll() is None
    await release_commits(pg)
    out, err = await ended(process)
    assert out.split() == ["committed"]
    assert process.returncode == EXIT_CODES[face], err
    await gone(pg)
    assert await pg.texts() == ["work"]


@pytest.mark.parametrize(("face", "moment"), [("plain", "commit")])
async def test_again_in_commit_its_outcome_is_unknown(
    process: subprocess.Popen[str], pg: PostgresJudge, face: str
) -> None:
    """The event loop breaks everything off at the second Ctrl-C; the server's answer is not
    waited for. The hooks are told so; the unit is there as a whole or not at all."""
    await hold_commits(pg)
    assert await line(process) == "written"
    await MOMENTS["commit"](pg)
    process.send_signal(signal.SIGINT)
    assert await line(process) == "interrupted"
    process.send_signal(signal.SIGINT)
    out, err = await ended(process)
    assert out.split() == ["unknown"]
    assert process.returncode == EXIT_CODES[face], err
    await release_commits(pg)
    await gone(pg)
    assert await pg.texts() in ([], ["work"])
