"""What ``python3 -m samples`` shows: the ledger imports the CSV file that comes with it.

The file holds lines that must be refused, so the import's own exit code is 1;
the demonstration's is 0 when exactly that happened. Run it again: nothing is
posted twice.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from samples.ledger.cli import REFUSED, UNUSABLE, main
from samples.ledger.database import URL_VARIABLE

TRANSFERS = Path(__file__).parent / "ledger" / "transfers.csv"

_NEXT = """
Next: the ledger's own commands, and its FastAPI front (then open http://127.0.0.1:8000/docs):

  {python} -m samples.ledger --help
  {python} -m uvicorn --factory samples.ledger.fronts.fastapi_app:create_app"""


def demonstrate() -> int:
    """Import the file; 0 if the ledger behaved as it should."""
    try:
        main(["import", str(TRANSFERS)], prog_name="python -m samples.ledger")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if code == UNUSABLE and URL_VARIABLE not in os.environ:
            print(
                f"The ledger is kept in {Path.cwd()}: if that is not yours, copy the clone to a"
                " folder of your own.",
                file=sys.stderr,
            )
        if code != REFUSED:
            return code or 1
        print("Some lines are there to be refused; the import's own exit code is 1 for that.")
        print(_NEXT.format(python=_this_python()))
        return 0
    return 1


def _this_python() -> str:
    """Name this interpreter as one would type it here."""
    python, here = Path(sys.executable), Path.cwd()
    name = str(python.relative_to(here) if python.is_relative_to(here) else python)
    return f'"{name}"' if " " in name else name


if __name__ == "__main__":
    sys.exit(demonstrate())
