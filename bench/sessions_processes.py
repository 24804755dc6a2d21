"""The programs that `bench.sessions` starts: servers on a core of their own, PostgreSQL in a folder that goes again.

It knows how programs are started, waited for and ended; it knows no product.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.report import pinned

ROOT = Path(__file__).parent.parent
_READY_WITHIN_S = 60.0
_STOPPED_WITHIN_S = 20.0
_POLL_S = 0.05
_LOG_TAIL = 4000
# Where Debian and Ubuntu put them: only `psql` and its like are on the path there.
_POSTGRESQL_HOME = Path("/usr/lib/postgresql")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """One running server."""

    port: int
    pid: int

    def core_seconds(self) -> float:
        """Return the processor time that its processes have had so far; it began a session, and they are in it."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                # After the name in brackets, which may hold anything: from field 3 on of proc(5).
                fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[3]) == self.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS_PER_S


@contextmanager
def running(
    command: Sequence[str], *, port: int, folder: Path, environment: Mapping[str, str], cores: Sequence[int]
) -> Iterator[Server]:
    """Start a server, wait until its `/healthz` answers 200, and end it afterwards. What it says goes into a file."""
    log = folder / f"server-{port}.log"
    with log.open("wb") as output, pinned(cores):
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=dict(environment), start_new_session=True
        )
    try:
        _wait(process, log, lambda: _health(port))
        yield Server(port, process.pid)
    finally:
        _end(process, signal.SIGTERM)


@contextmanager
def postgresql(folder: Path, cores: Sequence[int]) -> Iterator[int]:
    """Start a database server as it comes, every commit durable, whose superuser is `bench`; gives its port.

    Raises:
        FileNotFoundError: its programs are not installed.
    """
    programs = postgresql_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL's initdb and postgres are not installed")
    # It refuses to run as root. Its folder must be reachable for its user, whatever the way to ours is.
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="jotgate-bench-pg-"))
    try:
        if user is not None:
            shutil.chown(home, user, user)
        data, port, log = home / "data", free_port(), folder / "postgresql.log"
        initdb = (str(programs / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale")
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=home, user=user)
        command = (str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(home))
        options = ("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200")
        with log.open("wb") as output, pinned(cores):
            process = subprocess.Popen(
                (*command, *options),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=home,
                user=user,
                start_new_session=True,
            )
        try:
            ask = (str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port))
            _wait(process, log, lambda: subprocess.run(ask, check=False).returncode == 0)
            yield port
        finally:
            _end(process, signal.SIGINT)  # "fast": it does not wait for clients
    finally:
        shutil.rmtree(home, ignore_errors=True)


def postgresql_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs; None without one."""
    folders = [*_POSTGRESQL_HOME.glob("*/bin"), *(Path(entry) for entry in os.get_exec_path())]
    found = [folder for folder in folders if (folder / "initdb").is_file() and (folder / "postgres").is_file()]
    return max(found, key=lambda folder: [int(part) for part in folder.parts if part.isdecimal()], default=None)


def make_database(port: int, name: str) -> None:
    """Make an empty database."""
    programs = postgresql_programs()
    assert programs is not None
    command = (str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "bench", name)
    subprocess.run(command, check=True)


def free_port() -> int:
    """Return a port of the loopback address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def granian(app: str, port: int, *options: str, python: Path | None = None) -> list[str]:
    """Return the command that serves a Python app: one worker process, asyncio's own event loop."""
    command = [str(python or sys.executable), "-m", "granian", app, "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--workers", "1", "--loop", "asyncio", "--log-level", "warning", *options]


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
            raise RuntimeError(f"{process.args!r} did not start (status {process.returncode}):\n{said}")
        time.sleep(_POLL_S)


def _health(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_STOPPED_WITHIN_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End a process with its session: a server that is killed leaves its workers behind."""
    process.send_signal(how)
    try:
        process.wait(_STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
