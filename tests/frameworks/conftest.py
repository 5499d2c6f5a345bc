"""The most used frameworks are tested always, the others with ``--frameworks``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks import is_of_the_others


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    left_out = not config.getoption("frameworks") and is_of_the_others(collection_path.stem)
    return True if left_out else None
