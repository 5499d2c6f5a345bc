"""When the two commands make their environment anew, and what they say when they can't."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from samples import _environment as environment
from tests.samples.programs import run


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


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_clone_of_somebody_else_is_to_be_copied(code: int) -> None:
    said = environment.no_room(Path("clone"), OSError(code, "no"))
    assert said.endswith("copy the clone to a folder of your own")


def test_full_disk_is_not_somebody_elses() -> None:
    assert "copy" not in environment.no_room(Path("clone"), OSError(errno.ENOSPC, "full"))


def test_failed_step_says_that_the_next_run_starts_afresh(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"the installation failed .*run it again, it starts afresh"
    ):
        environment._step(
            [sys.executable, "-c", "raise SystemExit(1)"], tmp_path, "the installation"
        )


@pytest.mark.parametrize(
    ("argv", "command"),
    [("samples/__main__.py", "samples"), ("samples/postgresql.py", "samples.postgresql")],
)
def test_command_is_named_as_it_was_given(
    argv: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/clone/{argv}"])
    assert environment._command() == command


@pytest.mark.parametrize("module", ["samples", "samples.postgresql"])
def test_help_says_what_the_command_does_and_installs_nothing(module: str, tmp_path: Path) -> None:
    ran = run(tmp_path, module, "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"usage: python3 -m {module} " in ran.stdout
    assert ".venv/ of this clone" in ran.stdout


def test_argument_that_the_demonstration_does_not_have_is_refused(tmp_path: Path) -> None:
    ran = run(tmp_path, "samples", "import", "file.csv")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "python3 -m samples: error: unrecognized arguments: import file.csv" in ran.stderr


def test_postgresql_without_a_program_shows_its_usage(tmp_path: Path) -> None:
    ran = run(tmp_path, "samples.postgresql")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "usage: python3 -m samples.postgresql" in ran.stderr
