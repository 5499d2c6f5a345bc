"""The actor: a coroutine that obeys one command after the other, in real scopes of txkit.

A scope's body waits for the next command, so that a program that is made up as it goes recurses
through real decorated functions and ``async with`` blocks, all in one task.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from sqlalchemy import Column, ForeignKey, Integer, Table, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import txkit
from tests.stateful import commands as do
from tests.stateful.stage import Stage
from txkit import NoContextError, atomic, db_session, in_transaction, new_context, transactional


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    n: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    m: Mapped[int]


DEBT = Table("debt", Base.metadata, Column("n", Integer, ForeignKey("item.n")))
ITEM: Any = Item.__table__
INSERT = insert(ITEM)
SELECT = select(ITEM.c.n).limit(1)
BORROW = insert(DEBT).values(n=-1)
NULL = text("INSERT INTO item (n) VALUES (:n)")
MISSING = text("SELECT n FROM missing")


class Boom(Exception):
    """What bodies raise."""


class Tolerable(Boom):
    """What lenient units commit with."""


class HookFailure(Exception):
    """What hooks raise; its argument is the hook's number."""


RAISED = {"Boom": Boom, "Tolerable": Tolerable}


class Reply(NamedTuple):
    """What became of a command, and what ``in_transaction()`` says after it."""

    error: Exception | None
    in_transaction: tuple[bool, ...]


class Abandoned(BaseException):
    """The example is over; leave everything."""


class Actor:
    def __init__(self, stage: Stage, refrain: set[int]) -> None:
        self.databases = stage.databases
        self.start = stage.start
        self.refrain = refrain
        self.log: list[tuple[int, str, str | None]] = []
        self._loop = asyncio.get_running_loop()
        self._command: asyncio.Future[Any] = self._loop.create_future()
        self._reply: asyncio.Future[Reply] = self._loop.create_future()
        self.task = self._loop.create_task(self._live())

    async def obey(self, step: int, command: do.Command, error: Exception | None = None) -> Reply:
        """Let the actor take one command; ``error`` is what an ``End`` raises."""
        self._reply = self._loop.create_future()
        self._command.set_result((step, command, error))
        return await self._reply

    async def dismiss(self) -> None:
        """Let it leave whatever it stands in, and wait until it is gone."""
        if not self.task.done():
            if not self._command.done():
                self._command.set_exception(Abandoned())
            else:
                self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.exception()

    async def _live(self) -> None:
        await self._body()

    async def _body(self) -> int:
        """Take commands until one leaves this scope; return its number."""
        self._tell(None)
        while True:
            step, command, error = await self._command
            self._command = self._loop.create_future()
            if isinstance(command, do.End):
                if error is not None:
                    raise error
                return int(step)
            failure = None
            try:
                await self._act(step, command)
            except Exception as caught:  # noqa: BLE001 - it is compared
                failure = caught
            self._tell(failure)

    def _tell(self, error: Exception | None) -> None:
        if not self._reply.done():
            self._reply.set_result(Reply(error, tuple(map(in_transaction, self.databases))))

    async def _act(self, step: int, command: do.Command) -> None:
        await getattr(self, f"_{type(command).__name__.lower()}")(step, command)

    # Scopes

    async def _unit(self, step: int, command: do.Unit) -> None:
        options: dict[str, Any] = {"name": str(step)}
        if command.lenient:
            options["no_rollback_for"] = Tolerable
        if command.kind == "new_context":
            unit: Any = new_context(**options)
        else:
            unit = transactional(propagation=command.kind, **options)
        await self._in(unit, command.face, step)

    async def _atomic(self, step: int, command: do.Atomic) -> None:
        databases = [self.databases[db] for db in command.databases]
        mode = command.mode
        if command.face == "atomic_db_session":
            unit: Any = txkit.atomic_db_session(databases[0], current_transaction=mode)
        elif databases or mode is not None:
            unit = atomic(*databases, current_transaction=mode)
        else:
            unit = atomic
        await self._in(unit, command.face, step)

    async def _savepoint(self, _: int, command: do.Savepoint) -> None:
        async with (await db_session(self.databases[command.db])).begin_nested():
            await self._body()

    async def _in(self, unit: Any, face: str, step: int) -> None:
        """Stand in the scope: as a decorated function called after its step, or as a block."""
        if face == "function":

            async def scope() -> int:
                return await self._body()

            scope.__qualname__ = str(step)
            await unit(scope)()
        else:
            async with unit:
                await self._body()

    # Statements

    async def _session(self, db: int) -> AsyncSession:
        """Give the session, flushed: SQLAlchemy 2.0 does that for ORM statements, 2.1 for all."""
        session = await db_session(self.databases[db])
        if session.new:
            await session.flush()
        return session

    async def _write(self, step: int, command: do.Write) -> None:
        if command.pending:
            (await db_session(self.databases[command.db])).add(Item(n=self.start + step, m=0))
        else:
            await self._insert(command.db, step)

    async def _insert(self, db: int, number: int) -> None:
        await (await self._session(db)).execute(INSERT, {"n": self.start + number, "m": 0})

    async def _read(self, _: int, command: do.Read) -> None:
        await (await self._session(command.db)).execute(SELECT)

    async def _fail(self, step: int, command: do.Fail) -> None:
        session = await self._session(command.db)
        if command.why == "argument":
            await session.execute(INSERT, {"n": object(), "m": 0})
        elif command.why == "null":
            await session.execute(NULL, {"n": self.start + step})
        else:
            await session.execute(MISSING)

    async def _borrow(self, _: int, command: do.Borrow) -> None:
        await (await self._session(command.db)).execute(BORROW)

    # By hand

    async def _finish(self, _: int, command: do.Finish) -> None:
        database = self.databases[command.db]
        if command.by == "function":
            await getattr(txkit, f"{command.how}_db_session")(database)
        else:
            await getattr(await db_session(database), command.how)()

    async def _askrollback(self, step: int, _: do.AskRollback) -> None:
        txkit.set_rollback_only(f"asked in step {step}")

    # Hooks

    async def _hook(self, step: int, command: do.Hook) -> None:
        self._register(step, command)

    def _register(self, number: int, command: do.Hook) -> None:
        """Register the hook; of those that could be sync or async, every second one is."""
        is_before = command.kind == "before_commit"
        insert_one = self._insert if is_before else transactional(self._insert)

        def note(outcome: str | None = None) -> None:
            self.log.append((number, command.kind, outcome))
            if not is_before:
                _assert_no_context()
            self._do_in_hook(number, command)

        async def run(outcome: str | None = None) -> None:
            note(outcome)
            if command.does == "write" and number not in self.refrain:
                await insert_one(command.db, number)

        options = {"robust": True} if command.robust else {}
        hook = run if command.does == "write" or number % 2 else note
        getattr(txkit, command.kind)(hook, **options)

    def _do_in_hook(self, number: int, command: do.Hook) -> None:
        if command.does == "raise":
            raise HookFailure(number)
        if command.does == "ask":
            txkit.set_rollback_only("asked in a hook")
        if command.does == "hook":
            self._register(number + 1000, do.Hook("before_commit", "write", command.db))
            self._register(number + 2000, do.Hook("after_commit"))


def _assert_no_context() -> None:
    assert not in_transaction()
    try:
        txkit.set_rollback_only()
    except NoContextError:
        return
    raise AssertionError("a hook ran in a context")
