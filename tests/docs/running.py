"""Run a page's blocks one after the other, as one program, and compare what they show.

What was sent is asked of the driver's own connection: SQLite's trace callback,
and for BEGIN and the end of it asyncpg's ``execute`` (its query logger speaks
later, and not of prepared statements; those are SQLAlchemy's word). Only
connections of a pool are seen: a page's second connection does not disturb.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
import traceback
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.pages import Block, Page, Step

_MARK = "docs_log"
_RAN = "import pathlib as _p; _p.Path(__file__ + '.ran').touch()\n"


def run_page(page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run all of a page in ``folder``; give the number of blocks that ran."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for a page that starts another Python
    program = types.ModuleType("__main__")
    program.__file__ = str(page.path)
    monkeypatch.setitem(sys.modules, "__main__", program)
    modules = set(sys.modules)
    steps = page.steps()
    ran = 0
    try:
        with query_log(monkeypatch) as log:
            for block in page.blocks:
                if block.file is not None:
                    _store(block, folder)
                    if block.language != "python":
                        continue
                for step in steps:
                    if step.block is block:
                        log.clear()
                        _run(step, program, log)
                        ran += 1
    finally:
        for name in set(sys.modules) - modules:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
    for block in page.blocks:
        if block.file is not None and block.language == "python":
            assert (folder / f"{block.file}.ran").exists(), f"{block.where}: no block ran this file"
    return ran


def _store(block: Block, folder: Path) -> None:
    assert block.file is not None
    path = folder / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.code + (_RAN if block.language == "python" else ""))


def _run(step: Step, program: types.ModuleType, log: list[str]) -> None:
    block = step.block
    if block.file is not None:
        return
    printed = io.StringIO()
    # The empty lines make a traceback name the line of the page.
    code = compile(
        "\n" * (block.line - 1) + block.code, str(block.page.path), "exec", dont_inherit=True
    )
    raised: BaseException | None = None
    with contextlib.redirect_stdout(printed):
        try:
            exec(code, program.__dict__)
        except BaseException as error:
            if type(error).__name__ != block.expects:
                raise
            raised = error
            printed.writelines(traceback.format_exception_only(error))
    if block.expects is not None:
        assert raised is not None, (
            f"{block.where}: expected {block.expects}, and nothing was raised"
        )
    if step.printed is not None:
        _compare(step.printed, [step.printed.code], [printed.getvalue()])
    elif not block.expects:
        assert not printed.getvalue(), f"{block.where} prints, and the page does not show what"
    if step.sent is not None:
        _compare(step.sent, _statements(step.sent.code), log)


def _statements(code: str) -> list[str]:
    """Give the statements of an sql block: one a line, indented lines go on."""
    statements: list[str] = []
    for raw in code.splitlines():
        line = re.sub(r"\s*--.*", "", raw)
        if line.startswith(" ") and statements:
            statements[-1] += line
        elif line:
            statements.append(line)
    return statements


def _compare(shown: Block, expected: list[str], actual: list[str]) -> None:
    """Compare without regard to white space; ``...`` stands for anything."""
    expected = [_squeezed(one) for one in expected]
    actual = [_squeezed(one) for one in actual]
    pattern = re.escape("\n".join(expected)).replace(re.escape("..."), ".*")
    if re.fullmatch(pattern, "\n".join(actual), re.DOTALL) is None:
        lines = "\n".join(difflib.ndiff(expected, actual))
        pytest.fail(f"{shown.where}: not what happened (- the page, + the program)\n{lines}")


def _squeezed(text: str) -> str:
    return " ".join(text.split()).rstrip(";")


@contextlib.contextmanager
def query_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect what the drivers send, on every connection that a pool gives out."""
    sent: list[str] = []

    pooled: set[Any] = set()
    execute: Any = None

    async def log_simple(driver: Any, query: str, *args: Any, **options: Any) -> Any:
        if driver in pooled:
            # The statement that makes the driver begin was logged a moment ago.
            sent.insert(len(sent) - query.startswith("BEGIN"), query)
        return await execute(driver, query, *args, **options)

    def log_prepared(connection: Any, _cursor: Any, query: str, args: Any, *_: object) -> None:
        if connection.dialect.name == "postgresql" and _MARK in connection.info:
            sent.append(_with_values(query, args))

    def attach(dbapi_connection: Any, record: Any, _proxy: object) -> None:
        nonlocal execute
        if record.info.get(_MARK) is sent:
            return
        record.info[_MARK] = sent
        driver = dbapi_connection.driver_connection
        if not hasattr(driver, "add_query_logger"):
            dbapi_connection.run_async(lambda one: one.set_trace_callback(sent.append))
            return
        pooled.add(driver)
        if execute is None:
            # The driver's own class: what txkit's subclass adds to BEGIN is sent, too.
            owner = next(cls for cls in reversed(type(driver).__mro__) if "execute" in vars(cls))
            execute = owner.execute
            monkeypatch.setattr(owner, "execute", log_simple)

    event.listen(Pool, "checkout", attach)
    event.listen(Engine, "before_cursor_execute", log_prepared)
    try:
        yield sent
    finally:
        event.remove(Pool, "checkout", attach)
        event.remove(Engine, "before_cursor_execute", log_prepared)


def _with_values(query: str, args: Any) -> str:
    """Put the values in the place of ``$1::VARCHAR``, as SQLite's trace does."""

    def value(found: re.Match[str]) -> str:
        given = args[int(found[1]) - 1]
        return f"'{given}'" if isinstance(given, str) else str(given)

    return re.sub(r"\$(\d+)(?:::\w+)?", value, query)
