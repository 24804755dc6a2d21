"""Two whole replicas over TLS on a PostgreSQL and a Redis of their own, and verifiers that follow each of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from jotgate import Verifier
from jotgate.server.tls import ensure_local_certificate
from tests.conftest import PASSWORD, RunningServer, free_port, jotgate_command, launch, sign_up
from tests.faults.ears import WITHIN_S, DistantEar, Ear, NearEar, ToReplica
from tests.faults.load import Caller, Session
from tests.services import PASSWORD as SERVICES_PASSWORD
from tests.services import PostgresServer, RedisServer

AUDIENCE = "shop"
TOKEN_LIFE_S = 3600
BOUND_S = 3.0
"""Documented is one second for a verifier with a live path; a machine that others share may take a little more."""


@dataclass(frozen=True)
class Outage:
    """When something was away: what was confirmed just before or meanwhile may be heard once it is back."""

    began: float
    over: float

    def heard_by(self, confirmed_at: float) -> float:
        """Until when a verifier must have heard of what was confirmed then."""
        if confirmed_at + BOUND_S < self.began or confirmed_at > self.over:
            return confirmed_at + BOUND_S
        return self.over + BOUND_S


@dataclass
class Replicas:
    """What runs. The first replica has the issuer's own address."""

    postgres: PostgresServer
    redis: RedisServer
    database_url: str
    folder: Path
    environment: dict[str, str]
    ports: tuple[int, int]
    emails: Sequence[str]
    servers: list[RunningServer] = field(default_factory=list)
    ears: list[Ear] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return self.environment["JOTGATE_ISSUER"]

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def ca_file(self) -> Path:
        return self.data_dir / "tls" / "ca.pem"

    def start(self) -> None:
        """Start both at once."""
        with ThreadPoolExecutor(2) as threads:
            self.servers[:] = threads.map(self._launch, self.ports)

    def start_again(self, number: int) -> None:
        """Start one that has been killed, at its old address."""
        self.servers[number] = self._launch(self.ports[number])

    def kill(self, number: int) -> None:
        """Kill every process of one replica at once."""
        self.servers[number].kill()
        self.said.append(self.servers[number].output)

    def stop(self) -> None:
        """Stop both as a service manager does it."""
        with ThreadPoolExecutor(2) as threads:
            statuses = list(threads.map(RunningServer.stop, self.servers))
        self.said += [server.output for server in self.servers]
        assert statuses == [0, 0], self.said[-2:]

    def _launch(self, port: int) -> RunningServer:
        return launch(["serve", "--log-level", "debug"], self.data_dir, self.environment, port=port)

    def revoke_by_command_line(self, sid: str) -> None:
        """End a session without any server."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
        command = [*jotgate_command(), "sessions", "revoke", "--yes", "--data", str(self.data_dir), "--session", sid]
        subprocess.run(command, check=True, env=environment | self.environment, stdout=subprocess.DEVNULL)

    def clients(self) -> list[httpx2.Client]:
        """A client of each replica."""
        return [server.client() for server in self.servers]

    @contextlib.contextmanager
    def caller(self) -> Iterator[Caller]:
        with contextlib.ExitStack() as stack:
            yield Caller([stack.enter_context(client) for client in self.clients()])

    def verifier_of(self, number: int, **options: object) -> Verifier:
        """A verifier that follows one of the two."""
        transport = ToReplica(self.ca_file, self.ports[number])
        return Verifier(issuer=self.issuer, audience=AUDIENCE, transport=transport, **options)  # type: ignore[arg-type]  # a test's own choice of options

    def logs(self) -> str:
        """What all of them have said, those that were killed included."""
        return "\n".join([*self.said, *(server.output for server in self.servers)])


@contextlib.contextmanager
def run_replicas(postgres: PostgresServer, redis: RedisServer, folder: Path) -> Iterator[Replicas]:
    """Both replicas and their verifiers for as long as the block lasts."""
    ports = (free_port(), free_port())
    url = postgres.new_database()
    environment = {
        "JOTGATE_ISSUER": f"https://localhost:{ports[0]}",
        "JOTGATE_AUDIENCE": AUDIENCE,
        "JOTGATE_DATABASE_URL": url,
        "JOTGATE_REDIS_URL": redis.url,
        "JOTGATE_MASTER_KEY": secrets.token_urlsafe(32),
        **{
            f"JOTGATE_LIMIT_{kind}": "1000000/second"
            for kind in ("REFRESHES", "REQUESTS", "FEED", "SESSIONS", "CLIENT", "GLOBAL")
        },
        "JOTGATE_ACCESS_TOKEN_TTL_S": str(TOKEN_LIFE_S),  # no token ends by itself while a test still looks at it
    }
    emails = tuple(f"person{number}@faults.test" for number in range(3))
    replicas = Replicas(postgres, redis, url, folder, environment, ports, emails)
    ensure_local_certificate(replicas.data_dir / "tls", int(time.time()))  # one authority for both
    replicas.start()
    try:
        with replicas.clients()[0] as client:
            for email in emails:
                sign_up(client, email)
        replicas.ears += [
            NearEar("near the first replica", replicas.verifier_of(0)),
            NearEar("near the second replica", replicas.verifier_of(1)),
            DistantEar("distant", replicas.issuer, AUDIENCE, replicas.ca_file),
        ]
        yield replicas
    finally:
        for ear in replicas.ears:
            ear.close()
        for server in replicas.servers:
            server.kill()


def check_nothing_is_lost(replicas: Replicas, sessions: Sequence[Session], outage: Outage | None = None) -> None:
    """Whatever was confirmed holds, at both replicas and at every verifier."""
    ended = [session for session in sessions if session.ended_at is not None]
    alive = [session for session in sessions if session.ended_at is None]
    assert ended, "nobody logged out: nothing was tried"
    assert alive, "everybody logged out: nothing was tried"
    for session in ended:
        assert session.ended_at is not None
        due_at = session.ended_at + BOUND_S if outage is None else outage.heard_by(session.ended_at)
        for ear in replicas.ears:
            heard_at = ear.heard_at(session.sid, due_at + WITHIN_S)
            assert heard_at is not None, f"{ear.name} never heard that a session has ended"
            assert heard_at <= due_at, f"{ear.name} heard it {heard_at - due_at:.2f} s too late"
            assert ear.judge(session.access_token) == "token_revoked"
    clients = replicas.clients()
    with clients[0], clients[1]:
        for session in ended:
            for client in clients:
                answer = client.post("/v1/refresh", json={"refresh_token": session.refresh_token})
                assert (answer.status_code, answer.json()["code"]) == (401, "session_ended"), answer.text
    with replicas.caller() as caller:
        for session in alive:
            before = session.access_token
            caller.refresh(session)
            for ear in replicas.ears:
                assert ear.judge(before) == "accepted"
                assert ear.judge(session.access_token) == "accepted"


def check_logs(replicas: Replicas, sessions: Sequence[Session]) -> None:
    """Nothing in the logs is secret, and nothing came as a surprise."""
    said = replicas.logs()
    assert '"event": "refreshed"' in said  # so the log is really on
    for surprise in ("internal_error", '"event": "failed"', "Traceback"):
        assert not [line for line in said.splitlines() if surprise in line]
    canaries = [PASSWORD, SERVICES_PASSWORD, replicas.environment["JOTGATE_MASTER_KEY"]]
    for secret in (*canaries, *(secret for session in sessions for secret in session.secrets)):
        assert secret not in said
