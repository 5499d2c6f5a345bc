"""Run samples as a user does: another process, its output, its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def start(folder: Path, module: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start ``python -m MODULE`` in a folder, where any warning is an error."""
    unset = {"LEDGER_URL", "TXKIT_SAMPLE_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_take_ctrl_c,
    )


def run(
    folder: Path, module: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    process = start(folder, module, *arguments, **variables)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _take_ctrl_c() -> None:
    """Undo what a shell does to background jobs: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
