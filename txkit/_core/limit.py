"""A time limit: ``timeout_s``, on the event loop's clock.

``asyncio.timeout`` does the work. Here its end is told apart from a cancellation
that came from outside and from an exception of the user's own, and what took
longer without noticing (a swallowed cancellation, a blocked loop) is over time
all the same.

Must not roll back: it says what leaves, ``boundary`` does the rest.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from txkit._core.notes import attach
from txkit.database.postgresql import was_canceled
from txkit.errors import TransactionTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


class Limit:
    """The limit of one unit or joined call. It may be started and stopped several times.

    ``in_doubt`` leaves where a COMMIT by hand was cut off: then it is not sure that
    nothing was committed.
    """

    __slots__ = ("_timer", "deadline", "error", "in_doubt", "name", "timeout_s")

    _timer: asyncio.Timeout

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.deadline = asyncio.get_running_loop().time() + timeout_s
        self.error: BaseException | None = None
        self.in_doubt: BaseException | None = None

    async def run(self, work: Awaitable[T]) -> T:
        """Await ``work``, for as long as the limit allows.

        Raises:
            TransactionTimeoutError: it took longer; nothing was rolled back yet.
            BaseException: what ``work`` raised, unchanged.
        """
        await self.start()
        try:
            result = await work
        except BaseException as error:
            leaving = await self.stop(error)
            if leaving is error or leaving is None:
                raise
            raise leaving from error
        late = await self.stop(None)
        if late is not None:
            raise late
        return result

    async def run_function(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Call ``function`` and await it, as ``run`` does."""
        return await self.run(function())

    def check(self) -> None:
        """Raise if the limit has passed, for what awaits nothing.

        Raises:
            TransactionTimeoutError: nothing was rolled back yet.
        """
        if asyncio.get_running_loop().time() >= self.deadline:
            raise self._over()

    async def start(self) -> None:
        """Let the limit cancel what is awaited from here on; it awaits nothing itself."""
        self._timer = asyncio.timeout_at(self.deadline)
        await self._timer.__aenter__()

    async def stop(self, error: BaseException | None) -> BaseException | None:
        """Call the limit off, and give the error that is to leave."""
        kind: Any = None if error is None else type(error)
        try:
            await self._timer.__aexit__(kind, error, None)
        except TimeoutError:
            return self._over()
        if not self._is_over():
            return error
        if error is None or was_canceled(error):
            return self._over()
        self.error = error  # no rule commits it
        if not isinstance(error, asyncio.CancelledError):
            attach(error, f"{self.name!r} was past its timeout_s={self.timeout_s:g} by then")
        return error

    def _is_over(self) -> bool:
        return self._timer.expired() or asyncio.get_running_loop().time() >= self.deadline

    def _over(self) -> BaseException:
        self.error = self.in_doubt or TransactionTimeoutError(self.name, self.timeout_s)
        return self.error
