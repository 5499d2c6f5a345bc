"""Every program on every page runs, and does what the page says beside it."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import create_async_engine

import txkit
from tests import server as postgres
from tests.docs.pages import ROOT, Page, PageError, all_pages, read
from tests.docs.running import run_page
from txkit import errors

PAGES = all_pages()
PAGES_WITH_PROGRAMS = [page for page in PAGES if any(b.language == "python" for b in page.blocks)]
_NUMBERS = itertools.count(1)


def by_name(page: Page) -> str:
    return page.name


@pytest.fixture
def database_url(server: postgres.Server) -> Iterator[str]:
    """A PostgreSQL database of its own, made and dropped without a running loop."""
    name = f"txkit_docs_{next(_NUMBERS)}_{id(object()):x}"

    async def send(statement: str) -> None:
        url = server.admin_url.replace("postgresql:", "postgresql+asyncpg:", 1)
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as admin:
            await admin.execute(sql(statement))
        await engine.dispose()

    asyncio.run(send(f'CREATE DATABASE "{name}" TEMPLATE template0 STRATEGY file_copy'))
    yield server.url(name)
    asyncio.run(send(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.mark.parametrize("page", PAGES_WITH_PROGRAMS, ids=by_name)
def test_programs_of_page_do_what_it_says(
    page: Page,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if page.on_postgres:
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("database_url"))
    ran = run_page(page, tmp_path, monkeypatch)
    assert ran == sum(block.language == "python" for block in page.blocks)


def docstring_examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        yield from (found for found in finder.find(module) if found.examples)


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(txkit.__path__, "txkit.")
    return [txkit, *(importlib.import_module(one.name) for one in found)]


@pytest.mark.parametrize("example", list(docstring_examples()), ids=lambda one: str(one.name))
def test_example_in_docstring_holds(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("name", txkit.__all__)
def test_public_name_is_on_a_page_and_has_a_docstring(name: str) -> None:
    pages = [page for page in PAGES if page.path.parent.name == "docs"]
    written = [page.prose + "".join(block.code for block in page.blocks) for page in pages]
    assert any(re.search(rf"\b{name}\b", text) for text in written)
    assert inspect.getdoc(getattr(txkit, name))


@pytest.mark.parametrize("name", errors.__all__)
def test_error_has_a_heading_on_the_errors_page(name: str) -> None:
    assert name in headings(page_at("docs/errors.md"))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_of_page_resolve(page: Page) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in map(slug, headings(read(path))), f"{page.name} links to {target}"


def test_every_page_is_on_the_map() -> None:
    index = page_at("docs/index.md").prose
    for page in PAGES:
        if page.path.parent.name == "docs" and page.path.name != "index.md":
            assert f"]({page.path.name}" in index, f"{page.name} is not in docs/index.md"


FRAMEWORKS = [page for page in PAGES if page.path.parent.name == "frameworks"]
HEADINGS = ["Install", "Decorate", "Errors", "Streaming", "Background work", "Testing"]


def test_every_page_of_a_framework_is_in_the_matrix_and_has_its_headings() -> None:
    index = page_at("docs/frameworks/index.md").prose
    mistakes = page_at("docs/mistakes.md").prose
    tested = {path.stem for path in (ROOT / "tests" / "frameworks").glob("test_*.py")}
    for page in FRAMEWORKS:
        if page.path.name != "index.md":
            assert f"]({page.path.name})" in index, (
                f"{page.name} is not in docs/frameworks/index.md"
            )
            assert f"](frameworks/{page.path.name})" in mistakes, page.name
            assert f"test_{page.path.stem}" in tested, page.name
            found = re.findall(r"^## (.+)$", page.prose, re.MULTILINE)
            assert found == HEADINGS, page.name
            assert page in PAGES_WITH_PROGRAMS


def test_readme_has_the_two_commands_and_the_installs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    lines = readme.splitlines()
    for command in ("python3 -m samples", "python3 -m tests", "pip install ."):
        assert command in lines or f"$ {command}" in lines, command
    assert 'pip install ".[sqlite]"' in readme


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_words_of_page_are_those_of_the_field(page: Page) -> None:
    found = re.search(r"\b(master|slave|poisoned|subtransaction)", page.prose, re.IGNORECASE)
    assert found is None, found


@pytest.mark.parametrize(
    "text",
    [
        "```python\npass",
        "```\nno language\n```",
        "<!-- test: skip -->\n```python\n```",
        "<!-- test: expects Boom -->\nprose\n```python\n```",
        "<!-- test: expects Boom -->\n```sql\n```",
    ],
    ids=["open fence", "no language", "unknown word", "word away from fence", "word on sql"],
)
def test_page_that_cannot_be_tested_is_an_error(text: str) -> None:
    with pytest.raises(PageError):
        read(Path("page.md"), text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nprint('a')\n```\n```text\nb\n```", "page:5"),
        ("```python\nprint('a')\n```", "does not show what"),
        ("<!-- test: expects Boom -->\n```python\n```", "nothing was raised"),
        ("<!-- test: file a.py -->\n```python\n```", "no block ran this file"),
        ("```python\n```\n```sql\nCOMMIT\n```", "page:4"),
    ],
    ids=["other output", "output not shown", "no error", "file not run", "nothing sent"],
)
def test_page_that_is_wrong_fails(
    text: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=complaint):
        run_page(read(Path("page.md"), text), tmp_path, monkeypatch)


def page_at(name: str) -> Page:
    return next(page for page in PAGES if page.name == name)


def headings(page: Page) -> list[str]:
    return [found.replace("`", "") for found in re.findall(r"^#+ (.+)$", page.prose, re.MULTILINE)]


def slug(heading: str) -> str:
    """Give a heading's anchor, as the usual Markdown renderers do."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
