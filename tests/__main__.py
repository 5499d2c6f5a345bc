"""``python3 -m tests [pytest arguments]``: install what the tests need into .venv/, then run them.

Needs a bare Python 3.11 or newer and pip's network access. The tests start
their own PostgreSQL, one for each of two processes a processor: a third of their
time they wait. The exit code is pytest's.
"""

import os
import sys

from samples import _environment

if __name__ == "__main__":
    processes = min(2 * (os.cpu_count() or 1), 16)
    spread = [f"--numprocesses={processes}", "--dist=worksteal"]
    _environment.run("test", ["-m", "pytest", *spread, *sys.argv[1:]])
