"""``python -m tests.stateful [number of examples]``: random programs on SQLite and PostgreSQL.

Not a part of the suite yet: the model and txkit still disagree about some programs,
and which of the two is wrong is being settled one by one. A disagreement ends the
run and prints the program, for ``machine.replay``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests import server as postgres
from tests.stateful.machine import machine_on
from tests.stateful.stage import Theatre, on_postgres, on_sqlite


def main(examples: int) -> None:
    """Run that many programs on each backend."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with tempfile.TemporaryDirectory() as folder, Theatre(on_sqlite(Path(folder))) as theatre:
        run_state_machine_as_test(machine_on(theatre), settings=chosen)
    server = postgres.start()
    try:
        with Theatre(on_postgres(server)) as theatre:
            run_state_machine_as_test(machine_on(theatre), settings=chosen)
    finally:
        server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
