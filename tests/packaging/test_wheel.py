"""The wheel holds the package and nothing else, and works without any extra."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

USE = """
import asyncio, json, txkit
from importlib.metadata import distributions

async def use():
    async with txkit.transactional():
        assert not txkit.in_transaction()
    txkit.Database("postgresql://user@127.0.0.1/name")
    try:
        txkit.Database("sqlite:///file.db")
    except ModuleNotFoundError as error:
        assert 'pip install aiosqlite' in str(error), error
    else:
        raise AssertionError("aiosqlite is there")

asyncio.run(use())
assert not hasattr(txkit, "testing")
print(json.dumps(sorted(d.metadata["Name"].lower().replace("_", "-") for d in distributions())))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "setup.cfg"):
        shutil.copy(ROOT / name, source)
    for name in ("txkit", "tests", "samples", "docs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if name.startswith("txkit/")}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "txkit").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert package == expected
    others = {name.split("/")[0] for name in names - package}
    assert all(name.startswith("txkit-") and name.endswith(".dist-info") for name in others)


@pytest.mark.timeout(300)
def test_wheel_alone_works_and_brings_only_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True, cwd=tmp_path)
    output = subprocess.check_output([python, "-W", "error", "-c", USE], cwd=tmp_path, text=True)
    installed = set(json.loads(output)) - {"pip", "setuptools"}
    assert installed == {
        "txkit",
        "sqlalchemy",
        "greenlet",
        "typing-extensions",
        "asyncpg",
        "wrapt",
    }
