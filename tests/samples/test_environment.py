"""When the two commands make their environment anew, and what they say when they can't."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from samples import _environment as environment


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "a clone"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    return root


def make_ready(clone: Path) -> Path:
    """Put what a finished installation leaves."""
    folder = clone / ".venv" / "test-{}{}".format(*sys.version_info[:2])
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (folder / "stamp").write_text(environment.stamp(clone, "test"))
    return folder


def test_ready_environment_is_used_without_a_lock(clone: Path) -> None:
    folder = make_ready(clone)
    assert environment.prepare(clone, "test") == folder / "bin" / "python"
    assert not (clone / ".venv" / "lock").exists()


def test_changed_project_needs_another_environment(clone: Path) -> None:
    folder = make_ready(clone)
    (clone / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert not environment.is_current(folder, environment.stamp(clone, "test"))


def test_moved_clone_needs_another_environment(clone: Path) -> None:
    make_ready(clone)
    moved = clone.rename(clone.parent / "elsewhere")
    folder = moved / ".venv" / "test-{}{}".format(*sys.version_info[:2])
    assert not environment.is_current(folder, environment.stamp(moved, "test"))


def test_broken_off_installation_is_not_current(clone: Path) -> None:
    folder = make_ready(clone)
    (folder / "stamp").unlink()
    assert not environment.is_current(folder, environment.stamp(clone, "test"))


def test_environment_whose_interpreter_is_gone_is_not_current(clone: Path) -> None:
    folder = make_ready(clone)
    (folder / "bin" / "python").unlink()
    assert not environment.is_current(folder, environment.stamp(clone, "test"))


def test_extras_have_stamps_of_their_own(clone: Path) -> None:
    assert environment.stamp(clone, "test") != environment.stamp(clone, "samples")
    assert environment.stamp(clone, "test") == environment.stamp(clone, "test")


def test_lock_keeps_the_second_command_waiting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a+b") as other:
        with environment._locked(path):
            assert not environment._lock(other, wait=False)
        assert environment._lock(other, wait=False)


def test_old_python_is_told_which_one_to_use() -> None:
    said = environment.missing((3, 10), lambda _name: object())
    assert said is not None
    assert "needs Python 3.11 or newer, and this is 3.10" in said


@pytest.mark.parametrize("lacking", ["venv", "ensurepip"])
def test_missing_module_is_named_with_its_package(lacking: str) -> None:
    said = environment.missing((3, 12), lambda name: None if name == lacking else object())
    assert said is not None
    assert f"its module {lacking}," in said
    assert "apt install python3.12-venv" in said


def test_complete_python_lacks_nothing() -> None:
    assert environment.missing((3, 11), lambda _name: object()) is None
