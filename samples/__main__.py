"""``python3 -m samples``: install what the samples need into .venv/, then show the ledger.

Needs a bare Python 3.11 or newer and pip's network access. What runs then is
``samples/demonstration.py``: the ledger's import on a SQLite file, ledger.db.
"""

from samples import _environment

if __name__ == "__main__":
    _environment.run("samples", ["-m", "samples.demonstration"])
