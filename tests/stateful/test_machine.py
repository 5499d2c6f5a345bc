"""Random programs on both backends, and the bugs that they must find.

``TXKIT_EXAMPLES=20000`` runs that many with a fresh seed; without it the examples are the same
every time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.bugs import BUGS, Bug
from tests.stateful.comparing import Disagreement, play
from tests.stateful.machine import machine_on
from tests.stateful.stage import Theatre

EXAMPLES = os.environ.get("TXKIT_EXAMPLES")
HEALTHY = settings(
    max_examples=int(EXAMPLES or 1000),
    stateful_step_count=25,
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
HUNT = settings(
    HEALTHY,
    max_examples=1000,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
_SECONDS = 600 if EXAMPLES is None else 6 * 3600


@pytest.mark.timeout(_SECONDS)
def test_programs_do_what_the_model_foresees(theatre: Theatre) -> None:
    run_state_machine_as_test(machine_on(theatre), settings=HEALTHY)


@pytest.mark.parametrize("theatre", ["sqlite"], indirect=True)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_bug_is_found(bug: Bug, theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by it and nothing else: without it the same program does what the model foresees."""
    bug.switch_on(monkeypatch)
    with pytest.raises(Disagreement) as found:
        run_state_machine_as_test(machine_on(theatre), settings=HUNT)
    monkeypatch.undo()
    play(theatre, found.value.program)


def test_there_are_twelve_bugs_each_with_what_a_user_suffers() -> None:
    assert len(BUGS) == 12
    assert all(bug.suffered for bug in BUGS)
