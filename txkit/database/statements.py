"""Tell a statement that only reads from one that may do more.

When in doubt it may do more: what is asked here decides whether a transaction
can be committed without losing or revealing anything.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import TextClause

_READS = ("SELECT", "VALUES", "EXPLAIN SELECT", "EXPLAIN QUERY")
_UNDO = ("ROLLBACK TO",)
_SAVEPOINTS = ("SAVEPOINT", "RELEASE", "ROLLBACK TO")


def is_read(statement: Any) -> bool:
    """Whether an SQLAlchemy statement is a SELECT."""
    if isinstance(statement, TextClause):
        return is_read_text(statement.text)
    return bool(getattr(statement, "is_select", False))


def is_read_text(sql: str) -> bool:
    """Whether a statement's text is a SELECT's."""
    return _starts_with(sql, _READS)


def rolls_back_to(statement: Any) -> bool:
    """Whether a statement rolls back to a savepoint, which mends a broken transaction."""
    return isinstance(statement, TextClause) and rolls_back_to_text(statement.text)


def rolls_back_to_text(sql: str) -> bool:
    """Whether a statement's text rolls back to a savepoint."""
    return _starts_with(sql, _UNDO)


def is_savepoint_text(sql: str) -> bool:
    """Whether a statement's text sets or ends a savepoint."""
    return _starts_with(sql, _SAVEPOINTS)


def _starts_with(sql: str, words: tuple[str, ...]) -> bool:
    return sql.lstrip(" \t\r\n(").upper().startswith(words)
