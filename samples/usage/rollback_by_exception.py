"""An exception that leaves the boundary takes everything back, and goes on unchanged."""

from __future__ import annotations

from samples.usage.database import insert_text, run, show
from txkit import transactional


class OutOfStockError(Exception):
    """Something that goes wrong in a service."""


@transactional
async def handler() -> None:
    """Write, then fail: ROLLBACK."""
    await insert_text("never to be seen")
    raise OutOfStockError


@transactional(no_rollback_for=OutOfStockError)
async def tolerant_handler() -> None:
    """Write, then fail in a way that is no reason to lose the work: COMMIT."""
    await insert_text("kept")
    raise OutOfStockError


async def main() -> None:
    for entry in (handler, tolerant_handler):
        try:
            await entry()
        except OutOfStockError as error:
            await show(f"after {type(error).__name__} left {entry.__name__}")


if __name__ == "__main__":
    run(main)
