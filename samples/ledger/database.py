"""Where the ledger lives: a file next to you, unless a URL says otherwise."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from txkit import Database

DEFAULT_URL = "sqlite:///ledger.db"
URL_VARIABLE = "LEDGER_URL"
_PATIENCE_S = 60
"""How long a unit may wait for SQLite's one writer: two imports may run at the same time."""


def open_database(url: str) -> Database:
    """Make a Database for a URL; nothing connects yet.

    Raises:
        ValueError: the URL can't be used; the text says why.
    """
    if not url.startswith("sqlite"):
        return Database(url)
    database = Database(url, connect_args={"timeout": _PATIENCE_S})
    file = make_url(url).database or ""
    if not file.startswith("file:") and not Path(file).parent.is_dir():
        raise ValueError(f"there is no folder {Path(file).parent} for the database file")
    return database
