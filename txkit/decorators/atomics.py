"""atomic: a decorator and a block with a transaction of its own.

One object, as in ``units``; what it does is in ``_core.boundary.atomic``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from txkit._core.boundary.blocks import Block
from txkit._core.boundary.entries import atomic_entry
from txkit._core.boundary.streams import atomic_stream
from txkit.database import Database
from txkit.decorators.wrapper import F, Function, wrap
from txkit.policy.callables import is_stream
from txkit.policy.current_transaction import Mode, parse_mode
from txkit.policy.stacking import Applied

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

Y = TypeVar("Y")


class Atomic(Block, Generic[Y]):
    """Give a function or block a transaction of its own on the context's session.

    ``@atomic``, ``@atomic(db, ...)`` or ``async with atomic(db) as session:``. Its
    work is committed when it ends, without waiting for the end of the boundary, and
    rolled back as a whole when an exception leaves it. Inside another atomic block of
    the same Database it is a savepoint. Outside a context it opens one for itself.
    Bare, it covers every Database that the context uses or comes to use inside. A
    block yields the session of its one Database, nothing for none or several.
    After Django's ``atomic``.

    Sends:
        Nothing on entry, but for what ``current_transaction`` asks for; BEGIN (inside
        another block SAVEPOINT) goes out with the first statement. On a good exit
        pending ORM changes and COMMIT (RELEASE SAVEPOINT), on a bad one ROLLBACK
        (ROLLBACK TO SAVEPOINT).

    Args:
        databases: what it covers; none: all.
        current_transaction: what becomes of a transaction that is open and that no
            atomic block owns: ``"commit"`` it first, ``"rollback"`` it first,
            ``"append"`` to it and commit it with the block, be a ``"savepoint"`` of
            it, or ``"raise"``. None: commit it first if that can't lose or reveal
            anything (which may take one query), else raise.

    Raises:
        OpenTransactionError: an open transaction is in the way; it is still open.
        AtomicControlError: inside another block, with a mode that would break it up,
            or from whatever tries to end the block from inside; nothing was sent.
        UnexpectedRollbackError: a joined function failed before; rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        Exception: what left the function, unchanged, or what refused the commit;
            rolled back.

    Cancellation: before COMMIT was sent: rolled back. From then on it is finished first.
    """

    def __init__(self, databases: tuple[Database, ...], mode: Mode, *, given: bool = False) -> None:
        super().__init__()
        self._databases = databases
        self._mode = mode
        self._given = given
        self._applied = Applied("@atomic", databases=frozenset(databases))

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self, database: Database, /, *, current_transaction: str | None = None
    ) -> Atomic[AsyncSession]: ...
    @overload
    def __call__(self, *, current_transaction: str | None = None) -> Atomic[None]: ...
    @overload
    def __call__(
        self,
        database: Database,
        second: Database,
        /,
        *databases: Database,
        current_transaction: str | None = None,
    ) -> Atomic[None]: ...
    def __call__(self, *given: Any, current_transaction: str | None = None, **unknown: Any) -> Any:
        """Decorate a function, or take Databases and a mode and give another decorator."""
        if unknown:
            message = (
                f"@atomic has no option {', '.join(unknown)}: it takes current_transaction; what"
                " makes a transaction special belongs to its boundary, as in"
                f" @transactional({next(iter(unknown))}=...)"
            )
            raise TypeError(message)
        if all(isinstance(one, Database) for one in given):
            if self._given:
                message = "atomic(...) was given its Databases and its mode already: add them there"
                raise TypeError(message)
            return Atomic[Any](given, parse_mode(current_transaction), given=True)
        if len(given) == 1 and current_transaction is None:
            return wrap(self._applied, given[0], self._entry)
        message = "atomic() takes Databases, @atomic a function: write @atomic(db, ...) above it"
        raise TypeError(message)

    def _entry(self, function: Function, name: str) -> Function:
        entry = atomic_stream if is_stream(function) else atomic_entry
        return entry(function, self._databases, self._mode, name)

    async def __aenter__(self) -> Y:
        """Enter the block; give the session if it is about one Database."""
        session: Any = await self.enter_atomic(self._databases, self._mode)
        return session  # type: ignore[no-any-return]


atomic = Atomic[None]((), Mode())
