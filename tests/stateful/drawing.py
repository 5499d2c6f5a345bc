"""What Hypothesis draws commands from, and which of them mean something where the program stands.

Left out, since SQLAlchemy and not txkit decides what happens: ending a transaction by hand, or by
the mode of an atomic block, while a savepoint of the user's is open in it; a savepoint of the
user's in autocommit; on SQLite, a pending object where the write lock can't be had (its flush
fails, and SQLAlchemy ends the transaction).
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.stateful import commands as do
from tests.stateful.model import Model
from tests.stateful.state import DATABASES

DEEPEST = 6
ENDING = {"commit", "rollback", "append"}

_kinds = ["required"] * 4 + ["nested"] * 3 + ["requires_new"] * 2
_kinds += ["new_context", "mandatory", "supports"]
_afters = ["after_commit", "after_rollback", *["after_completion"] * 2]

_db = st.sampled_from(DATABASES)
_levels = st.sampled_from([0, 0, 0, 0, 1, 2])
_faces = st.sampled_from(["function", "block"])
_rarely = st.sampled_from([False, False, False, True])

_unit = st.builds(
    do.Unit, kind=st.sampled_from(_kinds), face=_faces, lenient=_rarely, levels=_levels
)
_not_lenient = st.builds(
    do.Unit, kind=st.sampled_from(["not_supported", "never"]), face=_faces, levels=_levels
)
_atomic = st.builds(
    do.Atomic,
    databases=st.sampled_from([(), (0,), (1,), (0, 1)]),
    mode=st.sampled_from([*[None] * 3, *["savepoint"] * 3, *sorted(ENDING), "raise"]),
    face=_faces,
    levels=_levels,
)
_seeds_atomic = st.builds(
    do.Atomic,
    databases=st.sampled_from([(0,), (1,)]),
    mode=st.sampled_from([None, None, "rollback", "savepoint"]),
    face=st.just("atomic_db_session"),
    levels=_levels,
)
_savepoint = st.builds(do.Savepoint, db=_db, levels=_levels)
_hook = st.builds(
    do.Hook,
    kind=st.sampled_from(_afters),
    does=st.sampled_from([*["nothing"] * 4, "write", "raise"]),
    db=_db,
)
_robust = st.builds(do.Hook, does=st.sampled_from(["nothing", "raise"]), robust=st.just(True))
_before = st.builds(
    do.Hook,
    kind=st.just("before_commit"),
    does=st.sampled_from([*["nothing"] * 3, *["hook"] * 3, "write", "raise", "ask"]),
    db=_db,
)
_fail = st.builds(
    do.Fail, db=_db, why=st.sampled_from(["null", "missing", "argument"]), levels=_levels
)
_write = st.builds(do.Write, db=_db, pending=_rarely, levels=_levels)

OPENINGS = st.one_of(*[_unit] * 5, _not_lenient, *[_atomic] * 3, _seeds_atomic, *[_savepoint] * 2)
LEAVINGS = st.builds(
    do.End, error=st.sampled_from([None, None, None, "Boom", "Tolerable"]), levels=_levels
)
STATEMENTS = st.one_of(_write, _write, _write, st.builds(do.Read, db=_db, levels=_levels))
HARM = st.one_of(_fail, st.builds(do.Borrow, db=_db), st.builds(do.AskRollback, levels=_levels))
ENDINGS = st.builds(
    do.Finish,
    how=st.sampled_from(["commit", "commit", "rollback", "close"]),
    db=_db,
    by=st.sampled_from(["function", "session"]),
    levels=_levels,
)
HOOKS = st.one_of(*[_hook] * 4, _robust, *[_before] * 2)


def _stories(db: int) -> list[list[do.Command]]:
    """Some turns that seldom come about by chance."""
    other = 1 - db
    joined_fails = [do.Unit(), do.Write(db), do.End("Boom")]
    return [
        [do.Write(db), do.Borrow(other)],
        [
            do.Unit("requires_new"),
            do.Hook("after_completion"),
            do.Write(db),
            do.Borrow(other),
            do.End(),
        ],
        [do.Write(other), *joined_fails],
        [do.Write(other), *joined_fails, do.Finish("rollback", db)],
        [do.Unit(), do.Write(db), do.AskRollback(), do.End()],
        [do.Unit("nested"), do.Write(db), do.End()],
    ]


STORIES = _db.flatmap(lambda db: st.sampled_from(_stories(db)))


def means_something(model: Model, command: do.Command) -> bool:
    """Whether the command may come next."""
    context = model.contexts[-1] if model.contexts else None
    if isinstance(command, do.Unit | do.Atomic | do.Savepoint):
        depth = sum(len(one.frames) for one in model.contexts)
        if depth >= DEEPEST:
            return False
    if context is None:
        return isinstance(command, do.Unit | do.Atomic)
    match command:
        case do.Atomic(databases, mode, face):
            ends = mode in ENDING or (mode is None and face == "atomic_db_session")
            return not (ends and any(map(context.users_savepoints, databases or DATABASES)))
        case do.Savepoint():
            return not context.autocommit
        case do.Write(db, pending):
            return not (pending and model.starves(context, db))
        case do.Finish(_, db):
            return not context.users_savepoints(db)
        case _:
            return True
