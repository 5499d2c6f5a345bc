"""Put an entry before a coroutine function and leave everything else as it was.

A wrapper is a ``FunctionWrapper`` whose ``__call__`` is a property that gives a
prepared coroutine function: frameworks see a coroutine function (a Python
``def __call__`` would hide that), and a joined call costs half of wrapt's own.
The only module that imports wrapt.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncIterator, Callable, Coroutine
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self, TypeVar

import wrapt

from txkit.decorators.mistakes import refuse_mistakes, remember
from txkit.policy.callables import qualified_name, refuse_undecorable
from txkit.policy.stacking import Applied

Function = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any] | AsyncIterator[Any]])
"""The type of what is decorated, which decorating does not change."""

if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[..., Any]
else:
    _FunctionWrapper = wrapt.FunctionWrapper


class Decorated(_FunctionWrapper):
    """A function in its boundary. Behaves as the function in every other respect."""

    def __init__(self, wrapped: Any, entry: Function, applied: Applied) -> None:
        super().__init__(wrapped, entry)
        self._self_entry = entry
        self._self_applied = applied

    __call__ = property(attrgetter("_self_entry"))  # pyright: ignore[reportAssignmentType]

    # wrapt's C extension lets one isinstance() with a runtime protocol blank these.
    @property
    def __annotations__(self) -> Any:
        """Those of the function; who sets them sets its own."""
        return self.__wrapped__.__annotations__

    @__annotations__.setter
    def __annotations__(self, annotations: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.__wrapped__.__annotations__ = annotations
        self._self_entry.__annotations__ = annotations

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """Bind as a function would."""
        if instance is None:
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


class DecoratedDescriptor(Decorated):
    """The same over a classmethod, a staticmethod, or what does not bind at all."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """Bind as the wrapped classmethod or staticmethod would."""
        wrapped = self.__wrapped__
        if isinstance(wrapped, staticmethod):
            return self._self_entry
        if isinstance(wrapped, classmethod):
            return types.MethodType(self._self_entry, owner or instance.__class__)
        return self


def wrap(applied: Applied, given: Any, make_entry: Callable[[Function, str], Function]) -> Any:
    """Put an entry before whatever coroutine function ``given`` is."""
    references = sys.getrefcount(given)
    if issubclass(type(given), Decorated):  # wrapt shows the class of what it wraps
        function: Any = attrgetter("_self_entry")(given)
    elif isinstance(given, (classmethod, staticmethod)):
        function = attrgetter("__func__")(given)
    else:
        function = given
    refuse_undecorable(applied.decorator, function)
    refuse_mistakes(applied, given, references)
    remember(given)  # which makes references
    entry = make_entry(function, qualified_name(function))
    updated = functools.WRAPPER_UPDATES if inspect.isroutine(function) else ()
    binds_plainly: bool = inspect.isfunction(given)  # pyright: ignore[reportUnknownArgumentType]
    kind = Decorated if binds_plainly else DecoratedDescriptor
    return kind(given, functools.update_wrapper(entry, function, updated=updated), applied)
