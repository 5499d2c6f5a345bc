"""Decorating changes no type, and decorating the wrong thing is a type error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
ROOT = CASES.parents[2]
NAMES = (
    "transactional|atomic|new_context|before_commit|after_commit|after_rollback|after_completion"
)
DECORATOR = re.compile(rf"^( *)@({NAMES}).*$", re.MULTILINE)


def mypy(file: Path) -> list[tuple[int, str, str]]:
    """(line, severity, message) of all that mypy --strict says."""
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version=3.13", str(file)]
    command += [f"--cache-dir={file.parent / 'cache'}", "--output=json", "--config-file="]
    output = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT).stdout
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [(one["line"], one["severity"], one["message"]) for one in found]


def pyright(file: Path) -> list[tuple[int, str, str]]:
    """(line, severity, message) of all that pyright in strict mode says.

    basedpyright is pyright in a wheel; pyright's own fetches itself from elsewhere.
    """
    strict = file.with_name(f"strict_{file.name}")
    strict.write_text(file.read_text() + "\n# pyright: strict, reportUnusedImport=false\n")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonversion=3.13"]
    command += [f"--pythonpath={sys.executable}", str(strict)]
    output = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT).stdout
    found = json.loads(output[output.index("{") :])["generalDiagnostics"]
    return [(one["range"]["start"]["line"] + 1, one["severity"], one["message"]) for one in found]


CHECKERS = pytest.mark.parametrize("checker", [mypy, pyright])


@CHECKERS
def test_decorated_has_the_type_of_the_undecorated(checker, tmp_path: Path) -> None:
    source = (CASES / "decorated.py").read_text()
    decorated, plain = tmp_path / "a" / "case.py", tmp_path / "b" / "case.py"
    for file, text in ((decorated, source), (plain, DECORATOR.sub(r"\1", source))):
        file.parent.mkdir()
        file.write_text(text)
    found = checker(decorated)
    assert found == checker(plain)
    assert len(found) == source.count("reveal_type(")
    assert all("error" not in severity for _, severity, _ in found)


@CHECKERS
def test_wrong_use_is_a_type_error(checker, tmp_path: Path) -> None:
    source = (CASES / "wrong.py").read_text()
    file = tmp_path / "wrong.py"
    file.write_text(source)
    expected = {n for n, line in enumerate(source.splitlines(), 1) if line.endswith("# error")}
    assert {line for line, severity, _ in checker(file) if severity == "error"} == expected


def test_installed_package_is_marked_as_typed() -> None:
    import txkit

    assert (Path(txkit.__file__).parent / "py.typed").exists()
