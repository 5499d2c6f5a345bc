"""Open a SQLite connection to the end, whatever becomes of the task that wants it.

aiosqlite opens in a thread of its own. A task that is cancelled meanwhile would leave
that thread behind, with a connection that nobody knows, and its answer might find the
event loop closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from txkit._core.finish import complete

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_OPEN_S = 10.0
"""For a file to be opened, or closed again, once nobody wants it any more."""

_CREATOR = "async_creator_fn"


def open_to_the_end(
    _dialect: object, _record: object, _arguments: object, options: dict[str, Any]
) -> None:
    """Be the listener of SQLAlchemy's ``do_connect`` event."""
    given = options.get(_CREATOR)
    if not isinstance(given, _Opener):
        options[_CREATOR] = _Opener(given)  # the same dict comes for each connection


class _Opener:
    def __init__(self, creator: Callable[..., Awaitable[Any]] | None) -> None:
        self._creator = creator or _plain

    async def __call__(self, *arguments: Any, **options: Mapping[str, Any]) -> Any:
        opened: list[Any] = []

        async def opening() -> None:
            opened.append(await self._creator(*arguments, **options))

        try:
            await complete(opening(), timeout_s=_OPEN_S, discard=lambda: None)
        except asyncio.CancelledError:
            for connection in opened:
                await complete(connection.close(), timeout_s=_OPEN_S, discard=lambda: None)
            raise
        return opened[0]


def _plain(*arguments: Any, **options: Any) -> Awaitable[Any]:
    """Do what SQLAlchemy does: a thread that is left does not keep the process."""
    import aiosqlite

    connection: Any = aiosqlite.connect(*arguments, **options)
    connection._thread.daemon = True  # noqa: SLF001
    return connection  # type: ignore[no-any-return]
