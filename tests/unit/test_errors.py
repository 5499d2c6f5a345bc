"""UnexpectedRollbackError's advice fits what happened."""

from __future__ import annotations

import pytest

from txkit import UnexpectedRollbackError

ADVICE = {
    ("failed", "unit"): "session.begin_nested",
    ("failed", "service"): "propagation='nested'",
    ("asked", "unit"): "it asked for that itself",
    ("asked", "service"): "'service' asked for that",
    ("lost", "unit"): "requires_new",
    ("lost", "service"): "no savepoint can undo",
}


@pytest.mark.parametrize(("how", "culprit"), ADVICE)
@pytest.mark.parametrize("ended", [True, False])
def test_advice_fits(how: str, culprit: str, ended: bool) -> None:
    error = UnexpectedRollbackError("unit", culprit, "why", how=how, ended=ended)  # type: ignore[arg-type]
    words = str(error)
    assert ADVICE[how, culprit] in words
    assert "(why)" in words
    assert ("was rolled back" in words) is ended
    assert "failed in its transaction" not in words or how == "failed"
