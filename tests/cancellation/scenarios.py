"""The units that are cancelled everywhere: those that every way and every loop is tried on."""

from __future__ import annotations

from tests.cancellation.stage import HOOKS, Scenario, Stage
from tests.notes import Boom
from txkit import transactional

BEFORE, COMMITTED, ROLLED_BACK, COMPLETED = (f"{kind} hook" for kind in HOOKS)


@transactional
async def commits(stage: Stage) -> str:
    stage.hooks("a")
    await stage.write("a")
    await stage.pause()
    await stage.write("a")
    return "result"


@transactional
async def raises(stage: Stage) -> None:
    stage.hooks("lost")
    await stage.write("lost")
    await stage.pause()
    await stage.write("lost")
    raise Boom


MAIN = [
    Scenario(
        commits,
        leaves="result",
        inside=("statement", "between statements", BEFORE, "COMMIT", COMMITTED, COMPLETED),
    ),
    Scenario(
        raises,
        parts=(),
        leaves=Boom,
        inside=("statement", "between statements", "ROLLBACK", ROLLED_BACK, COMPLETED),
    ),
]
