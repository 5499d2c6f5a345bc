"""``python3 -m tests [pytest arguments]``: install what the tests need into .venv/, then run them.

With ``--frameworks`` the tests and pages of all frameworks, the less used ones too, and nothing else.
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
    extra, arguments = "test", sys.argv[1:]
    if "--frameworks" in arguments:
        extra = "frameworks"
        arguments += ["tests/frameworks", "tests/docs", "-k", "not docs or frameworks"]
    _environment.run(extra, ["-m", "pytest", *spread, *arguments])
