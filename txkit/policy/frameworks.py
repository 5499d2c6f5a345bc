"""The frameworks that txkit knows by name. None is imported: a dotted name tells."""

from __future__ import annotations

_PACKAGES = frozenset(
    {
        "aiogram",
        "aiohttp",
        "apscheduler",
        "arq",
        "blacksheep",
        "click",
        "dishka",
        "django",
        "falcon",
        "fast_depends",
        "fastapi",
        "faststream",
        "flask",  # half of Quart
        "graphql",
        "grpc",
        "litestar",
        "mcp",
        "quart",
        "sanic",
        "sanic_routing",
        "starlette",
        "strawberry",
        "taskiq",
        "tornado",
        "typer",
    }
)


def is_of_a_framework(module: str) -> bool:
    """Whether a module, by its dotted name, is a known framework's."""
    return module.partition(".")[0] in _PACKAGES
