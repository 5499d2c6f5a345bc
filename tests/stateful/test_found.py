"""Programs that the machine found, each of which went wrong once. On both backends."""

from __future__ import annotations

import pytest

from tests.stateful.commands import (
    AskRollback,
    Atomic,
    Borrow,
    Command,
    End,
    Fail,
    Finish,
    Hook,
    Read,
    Savepoint,
    Unit,
    Write,
)
from tests.stateful.comparing import play
from tests.stateful.stage import Theatre

FOUND: dict[str, list[Command]] = {
    "a commit by hand that a hook forbids leaves the transaction whole": [
        Unit(),
        Hook("before_commit", "ask"),
        Read(),
        Finish(by="session"),
        Write(),
    ],
    "a hook before the commit is not lost with the one that failed": [
        Unit(),
        Hook("before_commit", "raise"),
        Hook("before_commit"),
        Write(),
        Finish(),
        Finish(),
    ],
    "ORM changes that were never sent are rolled back all the same": [
        Unit(),
        Write(pending=True),
        Hook("after_commit"),
        Hook("after_rollback"),
        Finish("rollback"),
        Write(db=1),
    ],
    "so they are by a session that is closed": [
        Unit(),
        Write(pending=True),
        Hook("after_commit"),
        Hook("after_rollback"),
        Finish("close"),
        Write(db=1),
    ],
    "and in autocommit nothing else was done": [
        Unit("not_supported"),
        Write(pending=True),
        Hook("after_rollback"),
        Finish("rollback"),
    ],
    "a request to roll back does not hide a database error": [
        Unit(),
        Unit(),
        Fail(),
        AskRollback(),
        Write(),
    ],
    "a savepoint is no way to flush into what is broken": [
        Unit(),
        Fail(),
        Write(pending=True),
        Atomic((0,), "savepoint"),
    ],
    "session.rollback() takes a request back though nothing was open": [
        Unit(),
        AskRollback(),
        Finish("rollback", by="session"),
        Finish(),
    ],
    "a transaction that a savepoint began is nobody's to end": [
        Unit(),
        Savepoint(),
        End(),
        Read(),
        Atomic(),
    ],
    "what was rolled back and closed says nothing of the unit's end": [
        Unit(),
        Write(),
        Hook("after_commit"),
        Finish("close"),
        Hook("after_commit"),
    ],
    "a hook that fails beside a refused commit is told with that": [
        Unit(),
        Hook("after_rollback", "raise"),
        Borrow(),
        Finish(by="session"),
        End(),
    ],
    "a block that is committed in part and rolled back in part is neither": [
        Unit(),
        Write(),
        Atomic(mode="savepoint"),
        Hook("after_completion"),
        Hook("after_rollback"),
        Write(),
        Write(db=1),
        End(),
        End(error="Boom"),
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_program_does_what_the_model_foresees(name: str, theatre: Theatre) -> None:
    play(theatre, FOUND[name])
