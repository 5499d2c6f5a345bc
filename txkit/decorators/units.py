"""transactional and new_context: decorators and blocks that open a boundary.

Each is one object that is a decorator (bare or with options) and an ``async
with`` block. What they do is in ``_core.boundary``; here it gets its faces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from txkit._core.boundary.blocks import Block
from txkit._core.boundary.entries import unit_entry
from txkit._core.boundary.streams import unit_stream
from txkit.decorators.wrapper import F, Function, wrap
from txkit.policy.callables import is_stream
from txkit.policy.definition import OPTIONS, Definition, define
from txkit.policy.propagation import Propagation
from txkit.policy.stacking import Applied

if TYPE_CHECKING:
    from txkit.policy.definition import ExceptionClasses, OutcomeRule


class _Unit(Block):
    """What ``transactional`` and ``new_context`` share: a boundary with a definition."""

    _kind: str

    def __init__(self, definition: Definition, *, given: bool = False) -> None:
        super().__init__()
        self._definition = definition
        self._given = given
        self._applied = Applied(self._kind, definition.propagation)

    def _decorate(self, functions: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if len(functions) != 1:
            message = f"{self._kind} decorates one function; options are given by name"
            raise TypeError(message)
        if options:
            message = f"write {self._kind}({', '.join(options)}=...) above the function, without it"
            raise TypeError(message)
        return wrap(self._applied, functions[0], self._entry)

    def _define(self, options: dict[str, Any]) -> Definition:
        if self._given:
            message = f"{self._kind}(...) was given its options already: add {list(options)} there"
            raise TypeError(message)
        unknown = [option for option in options if option not in OPTIONS]
        if unknown:
            message = (
                f"{self._kind} has no option {', '.join(unknown)}: it takes {', '.join(OPTIONS)}"
            )
            raise TypeError(message)
        return define(**options)

    def _entry(self, function: Function, name: str) -> Function:
        entry = unit_stream if is_stream(function) else unit_entry
        return entry(function, self._definition, self._definition.name or name)

    async def __aenter__(self) -> None:
        """Enter the boundary as a block; it yields nothing."""
        await self.enter_unit(self._definition, self._kind)


class Transactional(_Unit):
    """Run a coroutine function in a transaction: open a boundary, or join the one that is there.

    ``@transactional``, ``@transactional(...)`` or ``async with transactional(...):``;
    all are the same object, which may decorate many functions and be entered again.
    A boundary commits what is open when the function returns, rolls it back when
    anything leaves it (cancellation too), closes the sessions and takes the context
    away, all of that before the call returns. Joined, it begins and ends nothing;
    but if an exception leaves it that its own rules would roll back for, the unit it
    joined may only be rolled back. After Spring's ``@Transactional``.

    Sends:
        Nothing on entry: BEGIN goes out with the first statement, and what the options
        ask for within it. On a good exit the pending ORM changes and COMMIT, on a bad
        one ROLLBACK; joined, nothing; ``nested`` SAVEPOINT, and RELEASE SAVEPOINT or
        ROLLBACK TO SAVEPOINT; in autocommit neither BEGIN nor COMMIT.

    Args:
        propagation: what becomes of a context that is there, and what is done where
            none is: ``"required"`` (join, or open), ``"requires_new"`` (open),
            ``"nested"`` (a savepoint, or open), ``"mandatory"`` (join, or raise),
            ``"supports"`` (join, or autocommit), ``"not_supported"`` (autocommit) or
            ``"never"`` (raise, or autocommit).
        isolation: ``"SERIALIZABLE"`` or another level of SQL's; None: the engine's. A
            joined call must ask for the level that is there.
        read_only: True: the database refuses writes. Joining a transaction that may
            write, it is not enforced; False refuses to join a read-only one.
        deferrable: wait for a snapshot that can't fail; with ``"SERIALIZABLE"`` and
            ``read_only=True`` only.
        timeout_s: seconds from the first step until COMMIT is sent; on PostgreSQL the
            server's statements and waits for locks are limited too. A joined call is
            limited by itself.
        rollback_for: exception classes that roll back; the nearest class decides.
        no_rollback_for: exception classes that commit; never cancellation.
        outcome: ``outcome(result, error) -> bool`` in the place of the rules; true
            commits.
        name: for errors and log lines; None: the function's qualified name.

    Raises:
        TransactionRequiredError, TransactionNotAllowedError: mandatory without a
            context, never within one; the body was not entered, nothing is marked.
        IncompatibleTransactionError: joined, and an option contradicts what is there;
            the body was not entered, nothing is marked.
        UnexpectedRollbackError: a joined function or a statement failed before, and
            its error was swallowed; rolled back.
        TransactionTimeoutError: ``timeout_s`` has passed; rolled back.
        PartialCommitError: some Databases are committed, the others rolled back.
        CommitOutcomeUnknownError: COMMIT was sent and not answered: committed or rolled
            back, as a whole.
        AfterCommitError: committed, and hooks failed.
        Exception: what left the function, unchanged; rolled back unless the rules
            commit. Or what refused the commit; rolled back.
        TypeError, ValueError: when decorating, what can't be decorated or honoured.

    Cancellation: before COMMIT was sent: rolled back. From then on it is finished
    first (for up to ``finish_timeout_s``), then ``CancelledError`` leaves.

    Example:
        >>> import asyncio
        >>> from sqlalchemy import text
        >>> from txkit import Database, db_session, transactional
        >>> db = Database("sqlite:///example.db")
        >>> @transactional
        ... async def answer() -> int:
        ...     session = await db_session(db)
        ...     return (await session.execute(text("SELECT 42"))).scalar_one()
        >>> asyncio.run(answer())
        42
    """

    _kind = "@transactional"

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        propagation: Propagation | str = ...,
        isolation: str | None = ...,
        read_only: bool | None = ...,
        deferrable: bool = ...,
        timeout_s: float | None = ...,
        rollback_for: ExceptionClasses = ...,
        no_rollback_for: ExceptionClasses = ...,
        outcome: OutcomeRule | None = ...,
        name: str | None = ...,
    ) -> Transactional: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        """Decorate a function, or take options and give another decorator."""
        if function:
            return self._decorate(function, options)
        return Transactional(self._define(options), given=True)


class NewContext(_Unit):
    """Run a coroutine function in a new context, with sessions and connections of its own.

    ``@new_context``, ``@new_context(...)`` or ``async with new_context(...):``. It is
    committed at its end whatever becomes of the caller, whose context is untouched
    and comes back: the way to run several units at the same time, as in
    ``asyncio.gather(f(), new_context(f)())``. Every call takes a connection beside
    its caller's. What a suspended caller holds (the last connection of the pool, a
    lock) is not waited for.

    Sends:
        What ``transactional`` sends where it opens a boundary.

    Args:
        isolation, read_only, deferrable, timeout_s, rollback_for, no_rollback_for,
            outcome, name: as for ``transactional``.

    Raises:
        PoolStarvationError: suspended callers hold what it needs: every connection of
            the pool, or SQLite's write lock (raised by the first statement, nothing was
            sent), or a lock in PostgreSQL (its statement was cancelled); rolled back.
        Exception: as from the boundary of ``transactional``.

    Cancellation: as for ``transactional``.
    """

    _kind = "@new_context"

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        isolation: str | None = ...,
        read_only: bool | None = ...,
        deferrable: bool = ...,
        timeout_s: float | None = ...,
        rollback_for: ExceptionClasses = ...,
        no_rollback_for: ExceptionClasses = ...,
        outcome: OutcomeRule | None = ...,
        name: str | None = ...,
    ) -> NewContext: ...
    def __call__(self, *function: Any, **options: Any) -> Any:
        """Decorate a function, or take options and give another decorator."""
        if "propagation" in options:
            message = "@new_context always opens a context: propagation= belongs to @transactional"
            raise TypeError(message)
        if function:
            return self._decorate(function, options)
        definition = self._define({**options, "propagation": Propagation.REQUIRES_NEW})
        return NewContext(definition, given=True)


transactional = Transactional(Definition())
new_context = NewContext(define(propagation=Propagation.REQUIRES_NEW))
