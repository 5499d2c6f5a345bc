"""The stages, opened for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import server as postgres
from tests.stateful.stage import Theatre, on_postgres, on_sqlite


@pytest.fixture(params=["sqlite", "postgres"])
def theatre(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Theatre]:
    if request.param == "sqlite":
        made = on_sqlite(tmp_path)
    else:
        server: postgres.Server = request.getfixturevalue("server")
        made = on_postgres(server)
    with Theatre(made) as opened:
        yield opened
