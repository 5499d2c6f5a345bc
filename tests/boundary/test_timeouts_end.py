"""``timeout_s`` and the end of a unit: hooks before and after the commit, early commits. On both backends."""

from __future__ import annotations

import asyncio

import pytest

from tests.boundary.faces import BOTH_FACES, Run
from tests.boundary.test_timeouts import ENOUGH_S, RULES, for_ever
from tests.boundary.test_timeouts_joined import enough
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import (
    TransactionTimeoutError,
    after_commit,
    after_completion,
    after_rollback,
    before_commit,
    commit_db_session,
    in_transaction,
)

pytestmark = pytest.mark.usefixtures("connected")


@BOTH_FACES
async def test_before_commit_hook_is_within_the_limit(place: Place, run: Run) -> None:
    told: list[str] = []

    async def body() -> None:
        await write(place.db, "lost")
        before_commit(for_ever)
        after_commit(lambda: told.append("after commit"))
        after_rollback(lambda: told.append("after rollback"))
        after_completion(told.append)

    with pytest.raises(TransactionTimeoutError):
        await run(enough(), body)
    assert await place.texts() == []
    assert told == ["after rollback", "rolled_back"]


@BOTH_FACES
@pytest.mark.parametrize("rule", ["no_rollback_for", "outcome"])
async def test_before_commit_hook_after_an_exception_is_too(
    place: Place, run: Run, rule: str
) -> None:
    """The rules would commit with the exception, and the time is over before they can."""

    async def body() -> None:
        await write(place.db, "lost")
        before_commit(for_ever)
        raise Boom

    with pytest.raises(Boom) as caught:
        await run(enough(**RULES[rule]), body)
    assert f"timeout_s={ENOUGH_S:g}" in caught.value.__notes__[0]
    assert await place.texts() == []


@BOTH_FACES
async def test_hook_after_the_commit_is_not(place: Place, run: Run) -> None:
    told: list[str] = []

    async def slow() -> None:
        assert not in_transaction()
        await asyncio.sleep(1.2 * ENOUGH_S)
        told.append("done")

    async def body() -> str:
        await write(place.db, "kept")
        after_commit(slow)
        return "result"

    assert await run(enough(), body) == "result"
    assert told == ["done"]
    assert await place.texts() == ["kept"]


@BOTH_FACES
async def test_what_was_committed_early_stays(place: Place, run: Run) -> None:
    async def body() -> None:
        await write(place.db, "kept")
        await commit_db_session(place.db)
        await write(place.db, "lost")
        await for_ever()

    with pytest.raises(TransactionTimeoutError):
        await run(enough(), body)
    assert await place.texts() == ["kept"]
