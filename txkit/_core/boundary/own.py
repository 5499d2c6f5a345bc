"""A session outside any context, in the user's own hands.

It is guarded, cleaned up and completed under cancellation like the others, but
no context knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txkit._core.boundary.ending import commit_all, rollback_after, rollback_all, terminate_all
from txkit._core.boundary.enlist import new_own_session

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncSession

    from txkit._core.participant import Participant
    from txkit.database import Database


class OwnSession:
    """An ``async with`` block around one session; ``atomic`` commits it at the end."""

    _one: Participant

    def __init__(self, database: Database, name: str, *, atomic: bool) -> None:
        self._database = database
        self._name = name
        self._atomic = atomic

    async def __aenter__(self) -> AsyncSession:
        """Make the session; nothing is sent."""
        self._one = await new_own_session(self._database)
        if self._atomic:
            self._one.sealed_by = self._name
        return self._one.session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit or roll back what is open, and close the session."""
        if isinstance(error, GeneratorExit):
            terminate_all(self._name, [self._one])
        elif error is None and self._atomic:
            try:
                mark = self._one.tampered or self._one.broken_mark()
                if mark is not None:
                    raise mark.refusal(self._name, ended=True) from mark.error
                await commit_all(self._name, [self._one], close=True)
            except BaseException as failure:
                await rollback_after(self._name, [self._one], failure)
                raise
        elif error is None:
            await rollback_all(self._name, [self._one], "not committed", close=True)
        else:
            await rollback_after(self._name, [self._one], error)
