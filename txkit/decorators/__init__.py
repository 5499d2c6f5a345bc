"""transactional, atomic, new_context.

``units`` and ``atomics`` hold the three objects, ``wrapper`` fits them to any
callable, ``mistakes`` refuses what can only be one. What they do is in ``_core.boundary``.
"""

from collections.abc import Callable, Coroutine

from txkit.decorators.atomics import atomic
from txkit.decorators.units import new_context, transactional

__all__ = ["atomic", "new_context", "transactional"]


def _new_function() -> Callable[[], Coroutine[None, None, None]]:
    async def nobody_has_it() -> None: ...

    return nobody_has_it


for _decorator in (transactional, new_context, atomic):  # ``mistakes`` counts its references
    _decorator(_new_function())
