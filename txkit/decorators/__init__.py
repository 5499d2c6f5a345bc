"""transactional, atomic, new_context.

``units`` and ``atomics`` hold the three objects, ``wrapper`` fits them to any
callable. What they do is in ``_core.boundary``.
"""

from txkit.decorators.atomics import atomic
from txkit.decorators.units import new_context, transactional

__all__ = ["atomic", "new_context", "transactional"]
