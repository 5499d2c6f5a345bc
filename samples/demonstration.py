"""What ``python3 -m samples`` shows: the ledger imports the CSV file that comes with it.

The file holds lines that must be refused, so the import's own exit code is 1;
the demonstration's is 0 when exactly that happened. Run it again: nothing is
posted twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

from samples.ledger.cli import REFUSED, main

TRANSFERS = Path(__file__).parent / "ledger" / "transfers.csv"


def demonstrate() -> int:
    """Import the file; 0 if the ledger behaved as it should."""
    try:
        main(["import", str(TRANSFERS)], prog_name="python -m samples.ledger")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if code != REFUSED:
            return code or 1
        print("Some lines are there to be refused; the import's own exit code is 1 for that.")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(demonstrate())
