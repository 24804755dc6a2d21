"""The real PostgreSQL, PgBouncer and Redis that tests run against: own processes on loopback, ended by their ids.

Each has a folder of its own. They are Debian's programs (see scripts/ensure-services), started here and nowhere else.
Their passwords are made up, so that tests can look for them where they must not be.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg

T = TypeVar("T")

STARTED_WITHIN_S = 60
STOPPED_WITHIN_S = 60
PASSWORD = "canary-of-the-database"


def find_postgres() -> str | None:
    """The path of the newest `postgres` that is installed; Debian keeps it out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return str(found[-1]) if found else shutil.which("postgres")


def run_apart(work: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a coroutine in a thread of its own, so that it does not matter which event loop is running here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Service:
    """A server process on a port that stays the same from one start to the next."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        assert self._process is None, f"{self.name} runs already"
        with (self.folder / "log").open("ab") as log:
            self._process = self._launch(log.fileno())
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise AssertionError(f"{self.name} did not start; it said:\n{self.said()}")
            time.sleep(0.01)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait until it has ended. Whether it ran does not matter."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(STOPPED_WITHIN_S)
            self._process = None

    def restart(self) -> None:
        """Stop it, cutting all connections, and start it on the same port with the same data."""
        self.stop()
        self.start()

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def said(self) -> str:
        """What it wrote into its log."""
        return (self.folder / "log").read_text(errors="replace")

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError


class PostgresServer(_Service):
    """A PostgreSQL of its own. Everybody may log in as `jotgate` (with any password), `strict` needs the right one."""

    name = "PostgreSQL"

    def __init__(self, program: str, folder: Path, *, fsync: bool) -> None:
        super().__init__(folder)
        self._program = program
        self._fsync = fsync
        # PostgreSQL refuses to run as root, so that root lends it the user that Debian's package made, or nobody.
        self._user: int | None = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = pwd.getpwnam("postgres" if "postgres" in names else "nobody").pw_uid
            os.chown(folder, self._user, -1)
        self._count = 0

    @property
    def url(self) -> str:
        """The address of the database `postgres`, which is there from the beginning and which tests leave alone."""
        return self.url_of("postgres")

    def url_of(self, database: str, *, user: str = "jotgate") -> str:
        """The address of a database, with a password in it."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def make_cluster(self) -> None:
        """Make the empty database cluster in the folder."""
        initdb = str(Path(self._program).with_name("initdb"))
        options = ["--username=jotgate", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [initdb, *options, str(self.folder / "data")],
            user=self._user,
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        rules = "host all strict 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)

    def speak_tls(self, certificate: Path, key: Path) -> None:
        """Take TLS connections, and no others, from the next start on."""
        data = self.folder / "data"
        for name, source in (("server.crt", certificate), ("server.key", key)):
            shutil.copy(source, data / name)
            (data / name).chmod(0o600)
            if self._user is not None:
                os.chown(data / name, self._user, -1)
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write("ssl = on\n")
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")

    def query(self, sql: str, *values: object, database: str = "postgres") -> list[asyncpg.Record]:
        """Run one statement on a connection of its own; blocks."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.url_of(database))
            try:
                return await connection.fetch(sql, *values)
            finally:
                await connection.close()

        return run_apart(run)

    def new_database(self, *, template: str = "template0") -> str:
        """Make a database like the template, and return its address."""
        self._count += 1
        name = f"test{self._count}"
        self.query(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Delete a database, whoever is connected to it."""
        self.query(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def copy_database(self, url: str) -> str:
        """Make a copy of a database as its operator would, while it is used, and return the copy's address."""
        copy = self.new_database()
        programs = Path(self._program).parent
        with subprocess.Popen(
            [str(programs / "pg_dump"), "--dbname", url], cwd=self.folder, stdout=subprocess.PIPE
        ) as dump:
            subprocess.run(
                [str(programs / "psql"), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", copy],
                cwd=self.folder,
                check=True,
                stdin=dump.stdout,
                stdout=subprocess.DEVNULL,
            )
        assert dump.returncode == 0
        return copy

    def put_back(self, url: str, copy: str) -> None:
        """Put a copy in the place of a database, whoever is connected to that: nothing of the database is left."""
        name, other = url.rpartition("/")[2], copy.rpartition("/")[2]
        self.query(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        self.drop_database(url)
        self.query(f"ALTER DATABASE {other} RENAME TO {name}")

    def crash_one_connection(self, database: str) -> None:
        """Kill the process of one connection: the server ends all the others, too, and recovers by itself."""
        asks = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name = 'jotgate' LIMIT 1"
        (row,) = self.query(asks, database)
        os.kill(row["pid"], signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it in an orderly way that cuts all connections, whoever is in the middle of something."""
        super().stop(number)

    def crash(self) -> None:
        """End it without writing anything down: the next start recovers from the write-ahead log."""
        super().stop(signal.SIGQUIT)

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "shared_buffers": "32MB",
            "max_connections": "200",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [self._program, "-D", str(self.folder / "data"), *options],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A Ctrl-C in the terminal is for the tests, which then end it in an orderly way.
            start_new_session=True,
        )

    def _is_ready(self) -> bool:
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


class PgBouncer(_Service):
    """A pooler in front of a PostgreSQL; with `ignored` it drops startup parameters that it does not know."""

    name = "PgBouncer"

    def __init__(self, program: str, folder: Path, server: PostgresServer, *, mode: str, ignored: str = "") -> None:
        super().__init__(folder)
        self._program = program
        self._user = server._user
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": mode,
            "default_pool_size": "30",
            "ignore_startup_parameters": ignored,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        upstream = f"* = host=127.0.0.1 port={server.port} user=jotgate"
        (folder / "settings").write_text("\n".join(["[databases]", upstream, "[pgbouncer]", *lines, ""]))
        if self._user is not None:
            os.chown(folder, self._user, -1)

    def url_of(self, database: str) -> str:
        """The address of a database of the server, by way of the pooler."""
        return f"postgresql://jotgate:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._program, str(self.folder / "settings")],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _is_ready(self) -> bool:
        return "process up" in self.said()


class RedisServer(_Service):
    """A Redis of its own, which keeps nothing and wants a password; with TLS if it is given a certificate."""

    name = "Redis"

    def __init__(self, program: str, folder: Path, *, certificate: Path | None = None, key: Path | None = None) -> None:
        super().__init__(folder)
        self._program = program
        self._tls = ["--tls-port", str(self.port), "--port", "0", "--tls-auth-clients", "no"]
        self._tls += [
            "--tls-cert-file",
            str(certificate),
            "--tls-key-file",
            str(key),
            "--tls-ca-cert-file",
            str(certificate),
        ]
        self._speaks_tls = certificate is not None

    @property
    def url(self) -> str:
        scheme, host = ("rediss", "localhost") if self._speaks_tls else ("redis", "127.0.0.1")
        return f"{scheme}://:{PASSWORD}@{host}:{self.port}/0"

    def _launch(self, log: int) -> subprocess.Popen[bytes]:
        port = self._tls if self._speaks_tls else ["--port", str(self.port)]
        options = ["--bind", "127.0.0.1", *port, "--save", "", "--appendonly", "no"]
        return subprocess.Popen(
            [self._program, *options, "--dir", str(self.folder), "--requirepass", PASSWORD],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _is_ready(self) -> bool:
        if self._speaks_tls:
            return "Ready to accept connections" in self.said()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(f"AUTH {PASSWORD}\r\nPING\r\n".encode())
                return probe.makefile("rb").readline() == b"+OK\r\n"
        except OSError:
            return False


@contextmanager
def _own_folder() -> Iterator[Path]:
    # Not pytest's own folders: they are closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="jotgate-service-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def run_postgres(program: str, *, fsync: bool) -> Iterator[PostgresServer]:
    """A PostgreSQL for as long as the block lasts."""
    with _own_folder() as folder:
        server = PostgresServer(program, folder, fsync=fsync)
        server.make_cluster()
        server.start()
        try:
            server.query(f"CREATE ROLE strict LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.stop()


@contextmanager
def run_pgbouncer(program: str, server: PostgresServer, *, mode: str, ignored: str = "") -> Iterator[PgBouncer]:
    """A PgBouncer for as long as the block lasts."""
    with _own_folder() as folder:
        pooler = PgBouncer(program, folder, server, mode=mode, ignored=ignored)
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.stop()


@contextmanager
def run_redis(program: str, *, certificate: Path | None = None, key: Path | None = None) -> Iterator[RedisServer]:
    """A Redis for as long as the block lasts."""
    with _own_folder() as folder:
        server = RedisServer(program, folder, certificate=certificate, key=key)
        server.start()
        try:
            yield server
        finally:
            server.stop()
