"""Where sessions come from: engines, hosts, dialects.

Knows nothing of contexts and boundaries; those build on it.
"""

from txkit.database.database import Database

__all__ = ["Database"]
