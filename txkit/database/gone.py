"""The error of a COMMIT that finds no transaction, on either backend."""

from __future__ import annotations

from sqlalchemy.exc import InvalidRequestError


class TransactionGoneError(InvalidRequestError):
    """A COMMIT was due, and the transaction had been ended by a statement."""

    def __init__(self) -> None:
        super().__init__(
            "the transaction had been ended by a COMMIT or ROLLBACK that was sent as text"
        )
