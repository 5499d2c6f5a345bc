"""Read the fenced blocks of the Markdown pages, and the few words that steer their test.

A word stands in an HTML comment right above a fence (or, for ``page``, anywhere)::

    <!-- test: expects NAME -->             the block ends with this exception
    <!-- test: file NAME -->                the block is a file; a later one runs it
    <!-- test: page fixture postgres -->    the page runs on PostgreSQL, at DATABASE_URL

There is no word for "skip". CONTRIBUTING.md documents the same for people.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<language>\S*) *$")
_WORD = re.compile(r"^ *<!-- test: (?P<word>.+?) -->$")
_LANGUAGES = {"python", "text", "sql", "console", "toml", "ini", "mako"}
_ON_POSTGRES = "page fixture postgres"


class PageError(Exception):
    """A page that can't be tested as it is written."""


@dataclass
class Block:
    """A fenced block; ``line`` is the number of its first line of content."""

    page: Page
    language: str
    line: int
    code: str
    expects: str | None = None
    file: str | None = None

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass
class Step:
    """A python block, and what the page says that it printed and sent."""

    block: Block
    printed: Block | None = None
    sent: Block | None = None


@dataclass
class Page:
    """A Markdown file and its blocks, in order."""

    path: Path
    on_postgres: bool = False
    blocks: list[Block] = field(default_factory=list)
    prose: str = ""

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix() if ROOT in self.path.parents else "page"

    def steps(self) -> list[Step]:
        """Give the blocks to run, each with the blocks that its results are compared with."""
        steps: list[Step] = []
        follows_program = False
        for block in self.blocks:
            if block.language == "python":
                steps.append(Step(block))
                follows_program = True
            elif block.language == "sql":
                if not follows_program or steps[-1].sent is not None:
                    message = f"{block.where}: an sql block follows the python block that sends it"
                    raise PageError(message)
                steps[-1].sent = block
            elif block.language == "text" and follows_program:
                if steps[-1].printed is not None:
                    message = f"{block.where}: a second output of one block"
                    raise PageError(message)
                steps[-1].printed = block
            else:
                follows_program = False
        return steps


def all_pages() -> list[Page]:
    """Find every page that a reader may open."""
    top = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    return [read(path) for path in [*top, *sorted((ROOT / "docs").rglob("*.md"))]]


def read(path: Path, text: str | None = None) -> Page:
    """Take a page apart.

    Raises:
        PageError: an unknown word or language, a fence that is not closed.
    """
    page = Page(path)
    lines = (path.read_text("utf-8") if text is None else text).splitlines()
    prose: list[str] = []
    words: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        where = f"{page.name}:{number}"
        if found := _WORD.match(line):
            if found["word"] == _ON_POSTGRES:
                page.on_postgres = True
            else:
                words.append(found["word"])
        elif fence := _FENCE.match(line):
            start = number
            closing = fence["indent"] + fence["ticks"]
            while number < len(lines) and lines[number].rstrip() != closing:
                number += 1
            if number == len(lines):
                message = f"{where}: the fence is not closed"
                raise PageError(message)
            code = textwrap.dedent("\n".join(lines[start:number])) + "\n"
            number += 1
            if fence["language"] not in _LANGUAGES:
                message = f"{where}: {fence['language']!r} is not one of {sorted(_LANGUAGES)}"
                raise PageError(message)
            page.blocks.append(
                _marked(Block(page, fence["language"], start + 1, code), words, where)
            )
            words = []
        elif words:
            message = f"{where}: nothing may stand between a test word and its fence"
            raise PageError(message)
        else:
            prose.append(line)
    page.prose = "\n".join(prose)
    return page


def _marked(block: Block, words: list[str], where: str) -> Block:
    for word in words:
        verb, _, rest = word.partition(" ")
        if verb == "expects" and rest.isidentifier() and block.language == "python":
            block.expects = rest
        elif verb == "file" and rest:
            block.file = rest
        else:
            message = f"{where}: the test word {word!r} is unknown here"
            raise PageError(message)
    return block
