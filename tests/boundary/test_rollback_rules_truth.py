"""What is stronger than a rule that would commit: a transaction that can't be. On both backends."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tests.boundary.faces import BOTH_FACES, Run, ask
from tests.boundary.test_atomic import Note
from tests.conftest import Place
from tests.notes import Boom, write
from txkit import atomic, db_session, rollback_db_session, transactional

SOFT: dict[str, dict[str, Any]] = {
    "no_rollback_for": {"no_rollback_for": Boom},
    "outcome": {"outcome": lambda *_: True},
}
EVERY_RULE = pytest.mark.parametrize("rule", SOFT)


async def _core(place: Place) -> None:
    await ask(place.db, "INSERT INTO note (text) VALUES (NULL)")


async def _flush(place: Place) -> None:
    session = await db_session(place.db)
    session.add(Note(text=None))  # type: ignore[arg-type]
    await session.flush()


async def _joined(place: Place) -> None:
    await transactional(no_rollback_for=Exception)(_core)(place)


async def _raw(place: Place) -> None:
    session = await db_session(place.db)
    await (await session.connection()).exec_driver_sql("INSERT INTO note (text) VALUES (NULL)")


MISTAKES = {"core": _core, "flush": _flush, "joined": _joined, "driver sql": _raw}


@BOTH_FACES
@EVERY_RULE
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_swallowed_database_error_is_stronger(
    place: Place, run: Run, rule: str, mistake: str
) -> None:
    """The exception would commit, but the transaction can't: it leaves unchanged, with a note."""

    async def body() -> None:
        await write(place.db, "lost")
        with pytest.raises(IntegrityError):
            await MISTAKES[mistake](place)
        raise error

    error = Boom()
    with pytest.raises(Boom) as caught:
        await run(transactional(**SOFT[rule]), body)
    assert caught.value is error
    assert any("rolled back although the rules would commit" in one for one in error.__notes__)
    assert await place.texts() == []


@BOTH_FACES
@EVERY_RULE
async def test_database_error_that_leaves_is_not_committed_either(
    place: Place, run: Run, rule: str
) -> None:
    options = SOFT[rule] if rule == "outcome" else {"no_rollback_for": IntegrityError}
    with pytest.raises(IntegrityError):
        await run(transactional(**options), lambda: _core(place))
    assert await place.texts() == []


@BOTH_FACES
@EVERY_RULE
@pytest.mark.parametrize("by", ["savepoint", "rollback"])
async def test_database_error_that_was_undone_is_not(
    place: Place, run: Run, rule: str, by: str
) -> None:
    async def body() -> None:
        if by == "savepoint":
            await write(place.db, "kept")
            with pytest.raises(IntegrityError):
                async with atomic(place.db, current_transaction="savepoint"):
                    await _core(place)
        else:
            with pytest.raises(IntegrityError):
                await _core(place)
            await rollback_db_session(place.db)
            await write(place.db, "kept")
        raise Boom

    with pytest.raises(Boom) as caught:
        await run(transactional(**SOFT[rule]), body)
    assert not hasattr(caught.value, "__notes__")
    assert await place.texts() == ["kept"]


@BOTH_FACES
@EVERY_RULE
async def test_joined_failure_swallowed_before_is_stronger(
    place: Place, run: Run, rule: str
) -> None:
    @transactional
    async def culprit() -> None:
        raise KeyError

    async def body() -> None:
        await write(place.db, "lost")
        with pytest.raises(KeyError):
            await culprit()
        raise Boom

    with pytest.raises(Boom) as caught:
        await run(transactional(**SOFT[rule]), body)
    assert "culprit" in caught.value.__notes__[0]
    assert await place.texts() == []
