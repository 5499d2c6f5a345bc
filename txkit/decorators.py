"""transactional, atomic, new_context: wrapt and typing only.

Each is one object that is a decorator (bare or with options) and an ``async
with`` block. What they do is in ``_core.boundary``; here it is made to fit any
callable and to keep its type, signature, name, docs and attributes. The one
module that imports wrapt.

A wrapper is a ``FunctionWrapper`` whose ``__call__`` is a property that gives a
prepared coroutine function: frameworks see a coroutine function (a Python
``def __call__`` would hide that), and a joined call costs half of wrapt's own.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import wrapt

from txkit._core.boundary import blocks
from txkit._core.boundary.entries import atomic_entry, unit_entry
from txkit.database import Database
from txkit.policy.callables import qualified_name, refuse_undecorable
from txkit.policy.current_transaction import Mode, parse_mode
from txkit.policy.definition import Definition, define
from txkit.policy.propagation import Propagation

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit.policy.definition import ExceptionClasses, OutcomeRule

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
Y = TypeVar("Y")

_Function = Callable[..., Coroutine[Any, Any, Any]]

if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[..., Any]
else:
    _FunctionWrapper = wrapt.FunctionWrapper


class Decorated(_FunctionWrapper):
    """A function in its boundary. Behaves as the function in every other respect."""

    def __init__(self, wrapped: Any, entry: _Function) -> None:
        super().__init__(wrapped, entry)
        self._self_entry = entry

    __call__ = property(attrgetter("_self_entry"))  # pyright: ignore[reportAssignmentType]

    # wrapt's C extension lets one isinstance() with a runtime protocol blank these.
    __annotations__ = property(attrgetter("__wrapped__.__annotations__"))  # pyright: ignore[reportAssignmentType]

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """Bind as the wrapped function, classmethod or staticmethod would."""
        wrapped = self.__wrapped__
        if isinstance(wrapped, staticmethod):
            return self._self_entry
        if isinstance(wrapped, classmethod):
            return types.MethodType(self._self_entry, owner or instance.__class__)
        if instance is None or not inspect.isfunction(wrapped):
            return self
        return types.MethodType(self._self_entry, instance)

    def __copy__(self) -> Self:
        """A function is copied as itself."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """A function is copied as itself."""
        return self

    def __reduce_ex__(self, protocol: object) -> str:
        """A function is pickled by its name."""
        return str(self.__wrapped__.__qualname__)


class _Unit:
    """What ``transactional`` and ``new_context`` share: a boundary with a definition."""

    _kind: str

    def __init__(self, definition: Definition) -> None:
        self._definition = definition

    def _decorate(self, function: Any, options: dict[str, Any]) -> Any:
        if options:
            message = f"write {self._kind}({', '.join(options)}=...) above the function, without it"
            raise TypeError(message)
        return _wrap(self._kind, function, self._entry)

    def _entry(self, function: _Function, name: str) -> _Function:
        return unit_entry(function, self._definition, self._definition.name or name)

    async def __aenter__(self) -> None:
        """Enter the boundary as a block; it yields nothing."""
        name = self._definition.name or blocks.block_name(self._kind)
        blocks.enter_unit(self, self._definition, name)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        """End the block as the decorated function would end."""
        await blocks.leave(self, error)


class Transactional(_Unit):
    """The class of ``transactional``, and of what ``transactional(...)`` gives."""

    _kind = "@transactional"

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        propagation: Propagation | str = ...,
        rollback_for: ExceptionClasses = ...,
        no_rollback_for: ExceptionClasses = ...,
        outcome: OutcomeRule | None = ...,
        name: str | None = ...,
    ) -> Transactional: ...
    def __call__(self, function: Any = None, /, **options: Any) -> Any:
        """Decorate a function, or take options and give another decorator."""
        if function is None:
            return Transactional(define(**options))
        return self._decorate(function, options)


class NewContext(_Unit):
    """The class of ``new_context``, and of what ``new_context(...)`` gives."""

    _kind = "@new_context"

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        rollback_for: ExceptionClasses = ...,
        no_rollback_for: ExceptionClasses = ...,
        outcome: OutcomeRule | None = ...,
        name: str | None = ...,
    ) -> NewContext: ...
    def __call__(self, function: Any = None, /, **options: Any) -> Any:
        """Decorate a function, or take options and give another decorator."""
        if "propagation" in options:
            message = "@new_context always opens a context: propagation= belongs to @transactional"
            raise TypeError(message)
        if function is None:
            return NewContext(define(**options, propagation=Propagation.REQUIRES_NEW))
        return self._decorate(function, options)


class Atomic(Generic[Y]):
    """The class of ``atomic``, and of what ``atomic(...)`` gives; ``Y`` is what a block yields."""

    def __init__(self, databases: tuple[Database, ...], mode: Mode) -> None:
        self._databases = databases
        self._mode = mode

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
    def __call__(self, *given: Any, current_transaction: str | None = None) -> Any:
        """Decorate a function, or take Databases and a mode and give another decorator."""
        if all(isinstance(one, Database) for one in given):
            return Atomic[Any](given, parse_mode(current_transaction))
        if len(given) == 1 and current_transaction is None:
            return _wrap("@atomic", given[0], self._entry)
        message = "atomic() takes Databases, @atomic a function: write @atomic(db, ...) above it"
        raise TypeError(message)

    def _entry(self, function: _Function, name: str) -> _Function:
        return atomic_entry(function, self._databases, self._mode, name)

    async def __aenter__(self) -> Y:
        """Enter the block; give the session if it is about one Database."""
        name = blocks.block_name("atomic")
        session: Any = await blocks.enter_atomic(self, self._databases, self._mode, name)
        return session  # type: ignore[no-any-return]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        """Commit or roll back the block."""
        await blocks.leave(self, error)


transactional = Transactional(Definition())
new_context = NewContext(define(propagation=Propagation.REQUIRES_NEW))
atomic = Atomic[None]((), Mode())


def _wrap(decorator: str, given: Any, make_entry: Callable[[_Function, str], _Function]) -> Any:
    """Put an entry before whatever coroutine function ``given`` is."""
    is_descriptor = isinstance(given, (classmethod, staticmethod))
    function: Any = attrgetter("__func__")(given) if is_descriptor else given
    refuse_undecorable(decorator, function)
    entry = make_entry(function, qualified_name(function))
    updated = functools.WRAPPER_UPDATES if inspect.isroutine(function) else ()
    return Decorated(given, functools.update_wrapper(entry, function, updated=updated))
