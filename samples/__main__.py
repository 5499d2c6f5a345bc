"""``python3 -m samples``: install what the samples need into .venv/, then show the ledger.

Needs a bare Python 3.11 or newer and pip's network access. What runs then is
``samples/demonstration.py``: the ledger's import on a SQLite file, ledger.db.
"""

import argparse

from samples import _environment

_HELP = """\
Install what the samples need into .venv/ of this clone (the first time, over
the network, about a minute). Then import a CSV file into a small double-entry
ledger on SQLite, ledger.db, and show what was posted, what was refused and why.

It takes no arguments. Run it again: nothing is posted twice. Its last lines
name the next two commands: the ledger's own ones, and its FastAPI front.
"""

if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python3 -m samples",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    _environment.run("samples", ["-m", "samples.demonstration"])
