"""What several rooms' tests share: the real programs as child processes, and what to do where a program is missing.

It knows jotgate only from outside (its command line, its address, its certificate); it imports nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx2
import hypothesis
import pytest

from tests.services import PostgresServer, RedisServer, find_postgres, run_postgres, run_redis

# One profile for `make test` (the same examples each time, no deadline on a shared machine), one for `make soak`.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("suite")

READY_WITHIN_S = 60  # far above the promised 2 s: a loaded machine is no failure of the program
STOPPED_WITHIN_S = 30


def _missing(what: str) -> None:
    """Skips the test with a reason; in CI, where everything has to be there, fails it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and CI=true asks for it")
    pytest.skip(what)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names a long value (a key, say, that is new in each run) by its parameter: all workers must find the same."""
    return argname if isinstance(val, str | bytes) and len(val) > 32 else None


class Need(Protocol):
    def __call__(self, program: str) -> str: ...


@pytest.fixture(scope="session")
def need() -> Need:
    """`need("openssl")` gives the program's path; where it is not installed the test is skipped, in CI it fails."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is None:
            _missing(f"{program} is not installed")
        return str(path)

    return find


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of independent test vectors named by JOTGATE_VECTORS."""
    folder = os.environ.get("JOTGATE_VECTORS")
    if not folder:
        _missing("JOTGATE_VECTORS names no folder of test vectors")
    path = Path(str(folder))
    if not path.is_dir():
        pytest.fail(f"JOTGATE_VECTORS={folder} is not a folder")
    return path


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder that holds npm's jose, as scripts/ensure-services installs it."""
    folder = Path(__file__).parent.parent / ".venv" / "node" / "node_modules"
    if not (folder / "jose").is_dir():
        _missing("npm's jose is not installed (scripts/ensure-services does it)")
    return folder


@pytest.fixture(scope="session")
def postgres_program() -> str:
    """The path of `postgres`."""
    path = find_postgres()
    if path is None:
        _missing("PostgreSQL is not installed (scripts/ensure-services does it)")
    return str(path)


@pytest.fixture(scope="session")
def postgres_server(postgres_program: str) -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; it does not wait for the disk. Tests make databases in it and never stop it."""
    with run_postgres(postgres_program, fsync=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database of the test's own."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def mortal_postgres(postgres_program: str) -> Iterator[PostgresServer]:
    """A PostgreSQL that is durable as in real life, for `own_postgres`."""
    with run_postgres(postgres_program, fsync=True) as server:
        yield server


@pytest.fixture
def own_postgres(mortal_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A durable PostgreSQL that is the test's own for as long as it lasts: to stop, restart and crash as it likes."""
    if not mortal_postgres.runs:  # as the test before left it
        mortal_postgres.start()
    yield mortal_postgres
    if mortal_postgres.runs:  # the threads of a test that failed must not go on with it
        mortal_postgres.stop()


@pytest.fixture(scope="session")
def redis_server(need: Need) -> Iterator[RedisServer]:
    """One Redis for the whole run. Tests never stop it."""
    with run_redis(need("redis-server")) as server:
        yield server


@pytest.fixture
def own_redis(need: Need) -> Iterator[RedisServer]:
    """A Redis of the test's own, to stop and restart as it likes."""
    with run_redis(need("redis-server")) as server:
        yield server


def node_command(node: str) -> list[str]:
    """Node.js with Web Crypto, which version 18 (Debian 12's) hides behind an option that later ones may refuse."""
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
    return [node, "--experimental-global-webcrypto"] if version.startswith("v18.") else [node]


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def jotgate_command() -> list[str]:
    """The installed `jotgate`, or the same entry point out of a source tree that is not installed."""
    script = Path(sys.executable).with_name("jotgate")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "import sys; from jotgate.cli import main; sys.exit(main())"]


@dataclass(eq=False)
class RunningServer:
    """One `jotgate serve` or `jotgate demo`: a process group of its own, stopped by its number and no other."""

    process: subprocess.Popen[str]
    port: int
    data_dir: Path
    output: str = ""
    left_processes: bool = False  # whether any of its processes outlived the main one, once that was told to end
    _said: threading.Condition = field(default_factory=threading.Condition)
    _silent: bool = False

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.output += line
                self._said.notify_all()
        with self._said:
            self._silent = True
            self._said.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Returns when a whole line of the output matches; AssertionError if the program ends or is silent instead."""
        line = re.compile(rf"^{pattern}\n", re.MULTILINE)
        with self._said:
            self._said.wait_for(lambda: self._silent or line.search(self.output), READY_WITHIN_S)
        found = line.search(self.output)
        if found is None:
            self.kill()
            raise AssertionError(f"the server never said {pattern!r}; it said:\n{self.output}")
        return found

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.data_dir / "tls" / "ca.pem"

    def trust(self) -> ssl.SSLContext:
        """Trusts the server's own CA and nothing else."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def client(self, prefix: str = "") -> httpx2.Client:
        return httpx2.Client(base_url=self.url + prefix, verify=self.trust(), trust_env=False, timeout=30)

    def interrupt(self) -> int:
        """Ctrl-C as a terminal does it: SIGINT for the whole process group. Returns the exit status."""
        return self._end_by(signal.SIGINT, os.killpg)

    def stop(self) -> int:
        """SIGTERM for the main process, as a service manager does it. Returns the exit status."""
        return self._end_by(signal.SIGTERM, os.kill)

    def kill(self) -> None:
        """SIGKILL for every process of the group at once: no handler runs, nothing is flushed."""
        self._end_by(signal.SIGKILL, os.killpg)

    def _end_by(self, number: signal.Signals, send: Callable[[int, int], None]) -> int:
        if self.process.returncode is not None:
            return self.process.returncode  # its number may be another program's by now
        with contextlib.suppress(ProcessLookupError):
            send(self.process.pid, number)
        # Each process of the group holds the pipe open for as long as it lives, so its end is the end of all of them.
        self._reader.join(STOPPED_WITHIN_S)
        if self._reader.is_alive():
            self.left_processes = self.process.poll() is not None
            os.killpg(self.process.pid, signal.SIGKILL)
            self._reader.join()
            assert self.left_processes, f"the server did not stop; it said:\n{self.output}"
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait()


class StartServer(Protocol):
    def __call__(self, *arguments: str, data_dir: Path, env: dict[str, str] | None = None) -> RunningServer: ...


def launch(
    arguments: Sequence[str], data_dir: Path, env: dict[str, str] | None = None, *, port: int | None = None
) -> RunningServer:
    """Starts `jotgate …`, on a free port unless one is given, in its own process group; waits for its "ready" line."""
    port = port or free_port()
    # Unknown JOTGATE_ names stop a server by design, so none of the test run's own may reach it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    environment["JOTGATE_SIGNUP"] = "open"  # most stories begin with an account; tests of mail say "verified"
    if "PYTHONPATH" in environment:  # a source tree named by a relative path is still meant after the change of folder
        paths = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).resolve()) for path in paths)
    server = RunningServer(
        subprocess.Popen(
            [*jotgate_command(), *arguments, "--data", str(data_dir), "--port", str(port)],
            env=environment | (env or {}),
            cwd=data_dir.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ),
        port,
        data_dir,
    )
    server.wait_for("ready: .*")
    return server


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts as many servers as a test likes (`start_server("serve", data_dir=…)`), and ends those left over."""
    started: list[RunningServer] = []

    def start(*arguments: str, data_dir: Path, env: dict[str, str] | None = None) -> RunningServer:
        started.append(launch(arguments, data_dir, env))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def _one_for_all(command: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    # All tests have one address, and each makes its accounts.
    server = launch([command], tmp_path_factory.mktemp(command) / "data", {"JOTGATE_LIMIT_SIGNUPS": "1000/minute"})
    yield server
    assert server.stop() == 0, server.output


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One real `jotgate serve` for the whole run. Tests make accounts of their own in it and never stop it."""
    yield from _one_for_all("serve", tmp_path_factory)


@pytest.fixture(scope="session")
def running_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One real `jotgate demo` for the whole run, under the same rule."""
    yield from _one_for_all("demo", tmp_path_factory)


PASSWORD = "four plain words in a row"
# Keys are an issuer's: a server that comes back on another port of localhost would be another one.
SAME_ISSUER = {"JOTGATE_ISSUER": "https://auth.example.com"}


def sign_up(client: httpx2.Client, email: str) -> None:
    """Makes an account with PASSWORD; the client's base address is the auth server's."""
    answer = client.post("/v1/signup", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text


def log_in(client: httpx2.Client, email: str) -> dict[str, Any]:
    """Logs in as a program does, with the refresh token in the body, and returns the answer."""
    answer = client.post("/v1/login", json={"email": email, "password": PASSWORD, "delivery": "body"})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


@pytest.fixture(scope="session")
def new_email() -> Callable[[], str]:
    """A fresh address for each call, so that tests sharing a server never meet."""
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        return f"person{count}@shop.example"

    return make
