"""Units of every other shape: blocks, savepoints, ends by hand, several connections.

``a``, ``b`` ... are parts that are committed, in this order; what is ``lost`` never is.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import registry

from tests.cancellation.scenarios import BEFORE, COMMITTED, COMPLETED, ROLLED_BACK, commits
from tests.cancellation.stage import Scenario, Stage
from tests.notes import Boom, metadata, note, write
from txkit import (
    after_commit,
    atomic,
    close_db_session,
    commit_db_session,
    db_session,
    new_context,
    new_non_ctx_atomic_session,
    rollback_db_session,
    set_rollback_only,
    transactional,
)

WAITING = "waiting for a connection"


class Note:
    def __init__(self, text: str) -> None:
        self.text = text


registry(metadata=metadata).map_imperatively(Note, note)

_DEFERRED = (
    "CREATE FUNCTION deferred() RETURNS trigger AS $$ BEGIN {does}; RETURN NULL; END $$ LANGUAGE plpgsql",
    (
        "CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION deferred()"
    ),
)


def deferred(does: str) -> tuple[str, ...]:
    """Let COMMIT do something for each row."""
    return tuple(statement.format(does=does) for statement in _DEFERRED)


async def _part(stage: Stage, name: str) -> None:
    await stage.write(name)
    stage.hooks(name)
    await stage.pause()
    await stage.write(name)


@transactional
async def refused(stage: Stage) -> None:
    await _part(stage, "lost")


@transactional(timeout_s=60)
async def limited(stage: Stage) -> None:
    await _part(stage, "a")


@transactional
async def asked_for(stage: Stage) -> None:
    await _part(stage, "lost")
    set_rollback_only()


@transactional
async def atomic_inside(stage: Stage) -> None:
    async with atomic(stage.db):
        await _part(stage, "a")
    await _part(stage, "b")


@transactional
async def nested(stage: Stage) -> None:
    await stage.write("a")
    async with transactional(propagation="nested"):
        await _part(stage, "a")
    try:
        async with transactional(propagation="nested"):
            await _part(stage, "lost")
            raise Boom
    except Boom:
        await stage.write("a")


@transactional
async def by_function(stage: Stage) -> None:
    await _part(stage, "a")
    with stage.doing("commit_db_session"):
        await commit_db_session(stage.db)
    await _part(stage, "lost")
    with stage.doing("rollback_db_session"):
        await rollback_db_session(stage.db)
    await _part(stage, "lost too")
    with stage.doing("close_db_session"):
        await close_db_session(stage.db)
    await _part(stage, "b")


@transactional
async def by_session(stage: Stage) -> None:
    session = await db_session(stage.db)
    await _part(stage, "a")
    with stage.doing("session.commit()"):
        await session.commit()
    async with session.begin():
        await _part(stage, "b")
    await _part(stage, "lost")
    with stage.doing("session.rollback()"):
        await session.rollback()
    async with session.begin():
        async with session.begin_nested():
            await _part(stage, "c")
    await _part(stage, "lost too")
    with stage.doing("session.close()"):
        await session.close()


@transactional
async def context_inside(stage: Stage) -> None:
    await stage.write("b")

    @new_context
    async def inner() -> None:
        await _part(stage, "a")

    await inner()
    await _part(stage, "b")


@transactional
async def two_databases(stage: Stage) -> None:
    await write(stage.db2, "a")
    await _part(stage, "a")


async def blocks(stage: Stage) -> None:
    async with transactional():
        async with atomic(stage.db):
            await _part(stage, "a")
        async with new_context():
            await _part(stage, "b")
        await stage.write("c")


@transactional
async def unit_in_a_hook(stage: Stage) -> None:
    await _part(stage, "a")

    @after_commit
    @transactional
    async def follows() -> None:
        await _part(stage, "b")


async def own_session(stage: Stage) -> None:
    async with new_non_ctx_atomic_session(stage.db) as session:
        await session.execute(insert(note).values(text="a"))
        await stage.pause()
        await session.execute(insert(note).values(text="a"))


@transactional
async def flushes(stage: Stage) -> None:
    stage.hooks("a")
    (await db_session(stage.db)).add(Note(text="a"))


async def waits(stage: Stage) -> None:
    """The pool has one connection, and another unit gives it back while this one waits."""
    taken, release = asyncio.Event(), asyncio.Event()

    @transactional
    async def holder() -> None:
        await stage.write("lost")
        taken.set()
        await release.wait()
        set_rollback_only()

    @transactional
    async def waiter() -> None:
        with stage.doing(WAITING):
            await stage.write("a")
        await stage.pause()

    other = asyncio.create_task(holder())
    stage.afterwards = [release.set, lambda: other]
    await taken.wait()
    release.set()
    await waiter()


_BY_HAND = ("commit_db_session", "rollback_db_session", "close_db_session")
_BY_SESSION = ("session.commit()", "session.rollback()", "session.close()")
_ALL_HOOKS = (BEFORE, COMMITTED, ROLLED_BACK, COMPLETED)

MORE = [
    Scenario(commits, leaves="result", is_cold=True, inside=("connecting",)),
    Scenario(commits, leaves="result", set_up=deferred("PERFORM pg_sleep(0.005)"), name="slow"),
    Scenario(
        refused,
        parts=(),
        leaves=DBAPIError,
        set_up=deferred("RAISE EXCEPTION 'no'"),
        inside=("COMMIT", ROLLED_BACK),
    ),
    Scenario(limited, inside=("COMMIT",)),
    Scenario(asked_for, parts=(), inside=("ROLLBACK", ROLLED_BACK)),
    Scenario(flushes, inside=("statement", "COMMIT")),
    Scenario(atomic_inside, parts=("a", "b"), inside=("COMMIT",)),
    Scenario(nested, inside=("SAVEPOINT", "COMMIT", *_ALL_HOOKS)),
    Scenario(by_function, parts=("a", "b"), inside=(*_BY_HAND, *_ALL_HOOKS)),
    Scenario(by_session, parts=("a", "b", "c"), inside=(*_BY_SESSION, *_ALL_HOOKS)),
    Scenario(context_inside, parts=("a", "b"), connections=2, inside=("COMMIT",)),
    Scenario(two_databases, databases=2, inside=("COMMIT",)),
    Scenario(blocks, parts=("a", "b", "c"), inside=("COMMIT",)),
    Scenario(unit_in_a_hook, parts=("a", "b"), together=True, inside=("COMMIT",)),
    Scenario(own_session, inside=("COMMIT",)),
    Scenario(waits, pool_size=1, inside=(WAITING,)),
]
