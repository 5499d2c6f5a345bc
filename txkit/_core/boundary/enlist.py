"""Make sessions: a Database's part in a context, or a session of the user's own.

Nothing is sent; ``before_session`` of the Database may do what it likes.
"""

from __future__ import annotations

from typing import Any

from txkit._core.boundary import operations
from txkit._core.boundary.joining import refuse_engine
from txkit._core.context import Context
from txkit._core.guard import PLAIN_SESSION, guard
from txkit._core.participant import Participant
from txkit._core.place import surrounding_context
from txkit.database import Database


async def give(context: Context, database: Database) -> Participant:
    """Give the Database's participant to whoever asks for its session.

    Raises:
        IncompatibleTransactionError: a joined call asks for another isolation level.
    """
    one = context.participants.get(database) or await enlist(context, database)
    for name, asked in context.asked:
        await refuse_engine(one, asked, name)
    return one


async def enlist(context: Context, database: Database) -> Participant:
    """Give the Database's participant in the context, made if it is not there."""
    found = context.participants.get(database)
    if found is not None:
        return found
    given: Any = database
    if not isinstance(given, Database):
        message = f"a session comes from a txkit.Database, not from {type(given).__name__}"
        raise TypeError(message)
    session, engine = await database.new_session(PLAIN_SESSION)
    fresh = Participant(database, engine, session, context, context.outer)
    guard(fresh)
    found = context.participants.get(database)
    if found is not None:  # made by somebody else while before_session ran
        operations.close_idle(fresh)
        return found
    context.participants[database] = fresh
    for depth, scope in enumerate(context.scopes):
        if scope.owns(database):
            await hold(context, depth, fresh)
    return fresh


async def new_own_session(database: Database) -> Participant:
    """Make a guarded session that belongs to no context."""
    session, engine = await database.new_session(PLAIN_SESSION)
    participant = Participant(database, engine, session, None, surrounding_context())
    guard(participant)
    return participant


async def hold(context: Context, depth: int, one: Participant) -> None:
    """Let the atomic block at ``depth`` hold a participant.

    Inside another block of the same Database it holds a savepoint; the
    outermost one owns the transaction, and sends nothing here.
    """
    inner = any(scope.owns(one.database) for scope in context.scopes[:depth])
    savepoint = await operations.begin_savepoint(one) if inner else None
    context.scopes[depth].held[one] = savepoint
