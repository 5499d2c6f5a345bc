"""Handlers of every framework, decorated directly: what commits, and when."""

from __future__ import annotations

OTHERS = frozenset(
    {
        "aiogram",
        "apscheduler",
        "arq",
        "blacksheep",
        "dishka",
        "falcon",
        "grpc",
        "mcp",
        "others",
        "strawberry",
        "taskiq",
    }
)
"""The less used frameworks, with the extra ``frameworks``: ``python3 -m tests --frameworks``."""


def is_of_the_others(stem: str) -> bool:
    """Whether a test module or a page, by its name, is about one of the less used."""
    return stem.removeprefix("test_").partition("_")[0] in OTHERS
