"""What the tests of limits share."""

from __future__ import annotations

import pytest

from tests.conftest import Place
from tests.notes import count
from txkit import transactional


@pytest.fixture
async def connected(place: Place) -> None:
    """Let the pool have a connection, so that a limit is spent on nothing else."""
    await transactional(count)(place.db)
