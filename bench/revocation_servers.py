"""The deployments that `bench.revocation` measures: replicas behind nginx, or one server; started here, ended here."""

import asyncio
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.report import usable_cores
from bench.sessions_processes import ROOT, free_port, make_database, postgresql, postgresql_programs, running
from jotgate.core.revocations import Revocation
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.settings import Settings
from jotgate.server.store import Store
from jotgate.server.store.opening import make_store
from jotgate.server.tls import ensure_local_certificate

AUDIENCE = "shop"
_CLI = "import sys; from jotgate.cli import main; sys.exit(main())"
_SERVE = ("-c", _CLI, "serve")
# One command after another without a new interpreter for each: the store is opened and closed each time all the same.
_CLI_LOOP = """
import sys
from jotgate.cli.program import run
for line in sys.stdin:
    status = run(["sessions", "revoke", "--yes", "--json", *line.split()])
    print("\\ndone", status, flush=True)
"""
_READY_WITHIN_S = 60.0


UNLIMITED: Final = {
    f"JOTGATE_LIMIT_{kind}": "1000000/second"
    for kind in ("LOGINS", "SIGNUPS", "REFRESHES", "FEED", "REQUESTS", "SESSIONS", "STRANGERS", "CLIENT", "GLOBAL")
}
"""All who ask come from one address here."""


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Servers of one issuer that run, and how to reach their database."""

    issuer: str
    ca_file: Path
    data: Path
    environment: Mapping[str, str]
    postgresql_port: int | None = None

    def settings(self) -> Settings:
        """The servers' own settings."""
        own = {name: value for name, value in self.environment.items() if name.startswith("JOTGATE_")}
        return Settings.from_env(own, data_dir=self.data)

    def store(self) -> Store:
        """Open the database as the command line does."""
        store = make_store(self.settings())
        store.open()
        return store

    def revoke_by_cli(self, options: Sequence[str]) -> None:
        """Run ``jotgate sessions revoke``."""
        command = [sys.executable, "-c", _CLI, "sessions", "revoke", "--yes", "--data", str(self.data), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=dict(self.environment))

    @contextmanager
    def command_line(self) -> Iterator[Callable[[str], None]]:
        """Give what revokes one session as the command line does, and returns when it has answered."""
        with subprocess.Popen(
            [sys.executable, "-c", _CLI_LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(self.environment),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, stdout = process.stdin, process.stdout

            def revoke(sid: str) -> None:
                stdin.write(f"--data {self.data} --session {sid}\n")
                stdin.flush()
                for line in stdout:
                    if line.startswith("done"):
                        if line.split() != ["done", "0"]:
                            raise RuntimeError(f"the command line answered {line!r}")
                        return

            yield revoke
            stdin.close()

    def log_revocations(self, count: int) -> None:
        """Log as many sessions as revoked just now."""
        store = self.store()
        sids = tuple(urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=") for _ in range(count))
        try:
            asyncio.run(store.log_again([Revocation("session", sids)], now=int(time.time()), until_s=REVOCATION_LIFE_S))
        finally:
            store.close_now()


_COLUMNS = (
    "id, sid, account_id, client_id, scopes, generation, mac_kid, retired, confirmed, auth_time, "
    "created_at, seen_at, idle_ends_at, ends_at"
)
_VALUES = "(SELECT id FROM jotgate_accounts LIMIT 1), 'web', 'account:read', 0, 'AAAAAAAAAAA', '[]'"


def fill_with_sessions(deployment: Deployment, count: int) -> None:
    """Put live sessions of one account into the database, with its own SQL."""
    now = int(time.time())
    times = f"{now}, {now}, {now}, {now + 86_400}, {now + 864_000}"
    if deployment.postgresql_port is None:
        with closing(sqlite3.connect(deployment.data / "jotgate.sqlite3", timeout=60)) as database, database:
            database.execute(
                f"INSERT INTO jotgate_families ({_COLUMNS}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "  # noqa: S608
                f"SELECT i + 1 FROM n WHERE i < {count}) SELECT randomblob(16), lower(hex(randomblob(11))), "
                f"{_VALUES}, 0, {times} FROM n"
            )
        return
    programs = postgresql_programs()
    assert programs is not None
    statement = (
        f"INSERT INTO jotgate_families ({_COLUMNS}) SELECT decode(md5('id' || i), 'hex'), "  # noqa: S608 - numbers
        f"substr(md5('sid' || i), 1, 22), {_VALUES}, false, {times} FROM generate_series(1, {count}) AS n(i)"
    )
    port = str(deployment.postgresql_port)
    subprocess.run(
        [str(programs / "psql"), "-q", "-h", "127.0.0.1", "-p", port, "-U", "bench", "-d", "jotgate", "-c", statement],
        check=True,
    )


@contextmanager
def on_sqlite(
    folder: Path, settings: Mapping[str, str] | None = None, *, serve: Sequence[str] = _SERVE
) -> Iterator[Deployment]:
    """One server on the embedded database, with its own certificate; `serve` is what Python runs for it."""
    folder.mkdir()
    port = free_port()
    issuer = f"https://localhost:{port}"
    own = {
        **UNLIMITED,
        "JOTGATE_AUDIENCE": AUDIENCE,
        "JOTGATE_ISSUER": issuer,
        "JOTGATE_SIGNUP": "open",
        **(settings or {}),
    }
    environment = _clean() | own
    command = [sys.executable, *serve, "--data", str(folder / "data"), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--log-level", "warning"], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        try:
            if not any(line.startswith("ready:") for line in server.stdout):
                raise RuntimeError("the server did not start")
            data = folder / "data"
            yield Deployment(f"https://localhost:{port}", data / "tls" / "ca.pem", data, environment)
        finally:
            server.terminate()


@contextmanager
def on_postgresql(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    """Two replicas on PostgreSQL and Redis, behind nginx with the example's own configuration."""
    folder.mkdir()
    cores = usable_cores()
    with ExitStack() as stack:
        database_port = stack.enter_context(postgresql(folder, cores))
        make_database(database_port, "jotgate")
        redis_port = stack.enter_context(_redis(folder))
        nginx_port, ports = free_port(), (free_port(), free_port())
        issuer = f"https://localhost:{nginx_port}"
        environment = _clean() | {
            **UNLIMITED,
            "JOTGATE_AUDIENCE": AUDIENCE,
            "JOTGATE_SIGNUP": "open",
            "JOTGATE_ISSUER": issuer,
            "JOTGATE_DATABASE_URL": f"postgresql://bench@127.0.0.1:{database_port}/jotgate",
            "JOTGATE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "JOTGATE_MASTER_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="),
            "JOTGATE_TRUSTED_PROXIES": "127.0.0.1",
            "JOTGATE_HTTP": "true",
            **(settings or {}),
        }
        for number, port in enumerate(ports):
            command = [sys.executable, *_SERVE, "--data", str(folder / f"replica{number}")]
            options = ["--port", str(port), "--log-level", "warning"]
            stack.enter_context(
                running([*command, *options], port=port, folder=folder, environment=environment, cores=cores)
            )
        local = ensure_local_certificate(folder / "tls", int(time.time()))
        stack.enter_context(_nginx(folder, nginx_port, ports, local.cert, local.key))
        yield Deployment(issuer, folder / "tls" / "ca.pem", folder / "replica0", environment, database_port)


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.terminate()


@contextmanager
def _nginx(folder: Path, port: int, replicas: Sequence[int], cert: Path, key: Path) -> Iterator[None]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    text = (ROOT / "examples" / "replicas" / "nginx.conf").read_text(encoding="utf-8")
    changes = {
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "server_name auth.example.com;": "server_name localhost;",
        "127.0.0.1:8001": f"127.0.0.1:{replicas[0]}",
        "127.0.0.1:8002": f"127.0.0.1:{replicas[1]}",
        "/etc/ssl/jotgate/fullchain.pem": str(cert),
        "/etc/ssl/jotgate/privkey.pem": str(key),
    }
    for before, after in changes.items():
        if before not in text:
            raise RuntimeError(f"the example's nginx.conf no longer says {before!r}")
        text = text.replace(before, after)
    home = folder / "nginx"
    home.mkdir()
    (home / "nginx.conf").write_text(text, encoding="utf-8")
    command = [program, "-p", str(home), "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + _READY_WITHIN_S
            while not (home / "nginx.pid").exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("nginx did not start")
                time.sleep(0.05)
            yield
        finally:
            server.send_signal(signal.SIGQUIT if server.poll() is None else signal.SIGTERM)
            server.terminate()
