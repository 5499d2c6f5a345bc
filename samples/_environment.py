"""Prepare a virtual environment for a command that is run from the clone.

``.venv/PURPOSE-311`` holds the project, editable, with one of its extras. A
stamp in it, written last, says what it was made from; while that is unchanged
nothing is installed and nothing is locked. Making it happens under a lock, so
that commands started at the same time wait for one another.

Knows the standard library only, and runs far enough on an old Python to say
that it is one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import IO, NoReturn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def run(extra: str, arguments: list[str]) -> NoReturn:
    """Run ``python ARGUMENTS`` from the clone in the environment of ``extra``.

    On POSIX this process becomes that one: its output, signals and exit code.
    """
    complaint = missing(sys.version_info[:2], importlib.util.find_spec)
    if complaint is not None:
        sys.exit(complaint)
    try:
        python = prepare(ROOT, extra)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(no_room(ROOT, error))
    os.chdir(ROOT)
    os.environ["PYTHONUNBUFFERED"] = "1"
    command = [str(python), *arguments]
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(python, command)
    sys.exit(subprocess.call(command))


def missing(version: tuple[int, int], find: Callable[[str], object]) -> str | None:
    """Say what this Python lacks and what to do about it; None if it lacks nothing."""
    if version < OLDEST:
        return (
            "txkit needs Python 3.11 or newer, and this is {}.{} ({}): run the command again"
            " with a newer one, for example: python3.13 -m {}"
        ).format(*version, sys.executable, _command())
    lacking = [name for name in ("venv", "ensurepip") if find(name) is None]
    if lacking:
        return (
            "this Python ({}) comes without its module {}, which makes virtual environments:"
            " install it (on Debian and Ubuntu: apt install python{}.{}-venv), or run the command"
            " with another Python"
        ).format(sys.executable, " and ".join(lacking), *version)
    return None


def no_room(root: Path, error: OSError) -> str:
    """Say that the clone is no place for an environment, and where one would be."""
    said = f"no environment can be made in {root / '.venv'}: {error}"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        said += "; where that is not yours to change, copy the clone to a folder of your own"
    return said


def prepare(root: Path, extra: str) -> Path:
    """Give the environment's interpreter; make the environment unless it is up to date."""
    folder = root / ".venv" / "{}-{}{}".format(extra, *sys.version_info[:2])
    if not is_current(folder, stamp(root, extra)):
        folder.parent.mkdir(exist_ok=True)
        with _locked(folder.parent / "lock"):
            wanted = stamp(root, extra)
            if not is_current(folder, wanted):  # somebody else may have made it meanwhile
                _make(root, extra, folder)
                (folder / "stamp").write_text(wanted)
    return _python(folder)


def stamp(root: Path, extra: str) -> str:
    """Name everything that an environment is made from: another stamp, another environment."""
    base = getattr(sys, "_base_executable", sys.executable)
    made_from = [(root / "pyproject.toml").read_text(), str(root), extra, sys.version, base]
    return hashlib.sha256("\0".join(made_from).encode()).hexdigest()


def is_current(folder: Path, wanted: str) -> bool:
    """Whether the environment was made to its end, and from what is there today."""
    try:
        return (folder / "stamp").read_text() == wanted and _python(folder).exists()
    except OSError:
        return False


def _make(root: Path, extra: str, folder: Path) -> None:
    where = folder.relative_to(root)
    print(f"Making {where} with txkit[{extra}]: once, about a minute ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _step([sys.executable, "-m", "venv", str(folder)], root, "the virtual environment")
    install = [str(_python(folder)), "-m", "pip", "install", "--quiet", "--no-input"]
    install += ["--disable-pip-version-check", "--editable", f".[{extra}]"]
    _step(install, root, "the installation")


def _step(command: list[str], root: Path, what: str) -> None:
    """Run a command; everything that pip is configured to do stays, but for user installs."""
    code = subprocess.call(command, cwd=str(root), env={**os.environ, "PIP_USER": "0"})
    if code:
        sys.exit(
            f"{what} failed (exit code {code}): the reason is above; run it again, it starts afresh"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock file; it is released with this process, however that ends."""
    with path.open("a+b") as file:
        if not _lock(file, wait=False):
            print("Waiting for another command that installs here ...", flush=True)
            _lock(file, wait=True)
        yield


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(0)
            while True:
                with contextlib.suppress(OSError):  # "wait" there means ten seconds
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                    return True
                if not wait:
                    return False
        else:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _command() -> str:
    module = Path(sys.argv[0])
    name = module.parent.name or "samples"
    return name if module.stem == "__main__" else f"{name}.{module.stem}"
