"""``python3 -m tests [pytest arguments]``: install what the tests need into .venv/, then run them.

Needs a bare Python 3.11 or newer and pip's network access. The tests start
their own PostgreSQL, one for each processor. The exit code is pytest's.
"""

import sys

from samples import _environment

if __name__ == "__main__":
    _environment.run("test", ["-m", "pytest", "--numprocesses=auto", *sys.argv[1:]])
