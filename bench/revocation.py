"""From the answer to a revocation until every verifier refuses the session's tokens, and what revocations cost.

``python -m bench.revocation [--revocations N] [--json FILE]``. Real processes throughout: two replicas of ``jotgate
serve`` behind nginx on PostgreSQL and Redis (as ``examples/replicas`` sets them up), 20 verifiers in 4 processes; then
one server on SQLite, revoked over HTTP and by the command line. Each revocation is timed from its answer to the moment
at which each verifier has put its new state in place, and to the first refusal that a caller sees who verifies every
10 ms. All share two cores.
"""

import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from bench.report import Report, Row, Target, publish, run_options
from bench.revocation_servers import AUDIENCE, Deployment, fill_with_sessions, on_postgresql, on_sqlite

PACKAGES = ("jotgate", "granian", "cryptography", "msgspec", "asyncpg", "redis")
PROCESSES, VERIFIERS_EACH = 4, 5
P99_MS, MAX_MS = 250.0, 1000.0
MANY = 100_000
MANY_COST_US, MANY_MIB, MANY_WIRE_BYTES, READY_S = 0.3, 20.0, 3_000_000, 1.0
PASSWORD = "four plain words in a row"
_ANSWER_WITHIN_S = 90.0
_PROCESSES_COMPARED = 6  # of each kind: one may lie in memory better than another


class Session(NamedTuple):
    """One login."""

    sid: str
    access_token: str
    refresh_token: str


class VerifierProcess:
    """One process with verifiers, asked line by line."""

    def __init__(self, deployment: Deployment, count: int) -> None:
        command = [sys.executable, "-m", "bench.revocation_verifiers", deployment.issuer, AUDIENCE]
        self._process = subprocess.Popen(
            [*command, str(deployment.ca_file), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")},
        )
        self.started = self.read()

    def ask(self, question: Mapping[str, Any]) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """Wait for one line."""
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"fault": "the process ended"}')
        if "fault" in answer:
            raise RuntimeError(answer["fault"])
        return answer

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_ANSWER_WITHIN_S)


@contextmanager
def verifier_processes(deployment: Deployment, count: int, each: int) -> Iterator[Sequence[VerifierProcess]]:
    """Start processes with verifiers, all ready."""
    with ExitStack() as stack:
        processes: list[VerifierProcess] = []
        for _ in range(count):
            processes.append(VerifierProcess(deployment, each))
            stack.callback(processes[-1].close)
        yield processes


class People:
    """Accounts and logins over HTTP."""

    def __init__(self, deployment: Deployment) -> None:
        context = ssl.create_default_context(cafile=str(deployment.ca_file))
        self.http = httpx2.Client(base_url=deployment.issuer, verify=context, trust_env=False, timeout=60)
        self._email = f"person{random.randrange(10**9)}@shop.example"  # noqa: S311 - any name that is free
        self._checked("/v1/signup", {"email": self._email, "password": PASSWORD})

    def _checked(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        answer = self.http.post(path, json=body)
        if answer.status_code >= 300:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None

    def log_in(self) -> Session:
        """Begin a session."""
        told = self._checked("/v1/login", {"email": self._email, "password": PASSWORD, "delivery": "body"})
        payload = told["access_token"].split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return Session(claims["sid"], told["access_token"], told["refresh_token"])

    def log_out(self, session: Session) -> None:
        """End a session."""
        self._checked("/v1/logout", {"refresh_token": session.refresh_token})


def measure_latency(
    report: Report,
    name: str,
    sessions: Sequence[Session],
    revoke: Callable[[Session], None],
    processes: Sequence[VerifierProcess],
) -> None:
    """Revoke session by session, and time when every verifier has heard and the first refusal is seen."""
    heard_ms: list[float] = []
    refused_ms: list[float] = []
    answer_ms: list[float] = []
    chance = random.Random(7)  # noqa: S311 - so that revocations do not fall in step with anybody's clock
    for session in sessions:
        for process in processes:
            process.ask({"watch": session.access_token, "sid": session.sid})
        for process in processes:
            process.read()
        time.sleep(chance.uniform(0.0, 0.05))
        began = time.monotonic_ns()
        revoke(session)
        answered = time.monotonic_ns()
        answer_ms.append((answered - began) / 1e6)
        for process in processes:
            told = process.read()
            heard_ms += [max(at - answered, 0) / 1e6 for at in told["heard"]]
            refused_ms.append(max(told["refused"] - answered, 0) / 1e6)
    add_distribution(report, f"{name}: answer to the revoke until a verifier's new state", heard_ms)
    add_distribution(report, f"{name}: until a caller sees the first refusal", refused_ms)
    report.rows.append(Row.of(f"{name}: the revoke itself", answer_ms, "ms"))
    report.targets.append(Target(f"{name}: new state at every verifier, p99, ms", P99_MS, percentile(heard_ms, 99)))
    report.targets.append(Target(f"{name}: new state at every verifier, max, ms", MAX_MS, max(heard_ms)))


def add_distribution(report: Report, name: str, samples: Sequence[float]) -> None:
    """Add the median with its interval, and the 99th percentile and the longest as rows of their own."""
    report.rows.append(Row.of(f"{name}, p50", samples, "ms"))
    for label, value in (("p99", percentile(samples, 99)), ("max", max(samples))):
        report.rows.append(Row.figure(f"{name}, {label}", value, "ms", len(samples)))


def percentile(samples: Sequence[float], rank: int) -> float:
    """Return a percentile by nearest rank."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * rank // 100) - 1)]


def measure_many(report: Report, deployment: Deployment, people: People) -> None:
    """What 100,000 recent revocations cost a verifier: time for each verification, memory, the way over the wire."""
    session = people.log_in()
    without: list[float] = []
    few_kib = 0
    for _ in range(_PROCESSES_COMPARED):
        with verifier_processes(deployment, 1, 1) as [before]:
            before.ask({"measure": session.access_token})
            without.append(before.read()["verify_us"])
            few_kib = before.started["resident_kib"][1]
    deployment.log_revocations(MANY)
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    while len(snapshot := people.http.get("/revocations").content) < 20 * MANY:
        if time.monotonic() > deadline:
            raise TimeoutError("the server never published the revocations")
        time.sleep(0.1)
    ready: list[float] = []
    costs: list[float] = []
    kib: list[float] = []
    for _ in range(_PROCESSES_COMPARED):
        with verifier_processes(deployment, 1, 1) as [many]:
            ready += many.started["ready"]
            kib.append(many.started["resident_kib"][1] - few_kib)
            many.ask({"measure": session.access_token})
            costs.append(many.read()["verify_us"] - statistics.median(without))
    report.rows.append(Row.of("100,000 revocations: a verification more than with none", costs, "µs"))
    report.rows.append(
        Row.of("100,000 revocations: memory of a new verifier's process more", [k / 1024 for k in kib], "MiB")
    )
    report.rows.append(Row.of("100,000 revocations: a new verifier is ready after", ready, "s"))
    report.rows.append(Row.figure("100,000 revocations: snapshot on the wire", len(snapshot) / 1e6, "MB"))
    report.targets += [
        Target("100,000 revocations: a verification more, µs", MANY_COST_US, statistics.median(costs)),
        Target("100,000 revocations: memory, MiB", MANY_MIB, statistics.median(kib) / 1024),
        Target("100,000 revocations: snapshot, bytes", MANY_WIRE_BYTES, len(snapshot)),
        Target("100,000 revocations: new verifier ready, s", READY_S, statistics.median(ready)),
    ]


def measure_million(report: Report, deployment: Deployment, name: str, count: int, revocations: int) -> None:
    """The same with a million sessions in the database; then all of a client's, and everybody's, at once."""
    people = People(deployment)
    fill_with_sessions(deployment, count)
    with verifier_processes(deployment, PROCESSES, VERIFIERS_EACH) as processes:
        sessions = [people.log_in() for _ in range(revocations)]
        measure_latency(report, f"{name}, {count:,} sessions in the database", sessions, people.log_out, processes)
        for label, options in (("a client's sessions, all", ["--client", "web"]), ("everything", ["--all"])):
            # Of a second of its own: a token of the revocation's own second is refused, too.
            time.sleep(1.1)
            session = people.log_in()
            for process in processes:
                process.ask({"watch": session.access_token, "sid": session.sid})
            for process in processes:
                process.read()
            began = time.monotonic_ns()
            deployment.revoke_by_cli(options)
            answered = time.monotonic_ns()
            heard = [at for process in processes for at in process.read()["heard"]]
            refusal = people.http.post("/v1/refresh", json={"refresh_token": session.refresh_token})
            if refusal.status_code != 401:
                raise RuntimeError(f"a session that was revoked with all others answered {refusal.status_code}")
            took, until = (answered - began) / 1e6, max(max(heard) - answered, 0) / 1e6
            report.rows.append(Row.figure(f"{name}, {count:,} sessions: {label}: the command", took, "ms"))
            report.rows.append(Row.figure(f"{name}, {count:,} sessions: {label}: last of 20 verifiers", until, "ms"))


def main() -> None:
    """Measure, and print."""
    options = run_options(
        "Revocations: until everybody knows, and what they cost.", revocations=500, million=1_000_000, after_million=100
    )
    report = Report("revocation", PACKAGES)
    with tempfile.TemporaryDirectory(prefix="jotgate-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        with on_postgresql(folder / "postgresql") as deployment:
            people = People(deployment)
            with verifier_processes(deployment, PROCESSES, VERIFIERS_EACH) as processes:
                sessions = [people.log_in() for _ in range(options.revocations)]
                measure_latency(report, "2 replicas, PostgreSQL + Redis", sessions, people.log_out, processes)
            if options.million:
                measure_million(
                    report, deployment, "2 replicas, PostgreSQL + Redis", options.million, options.after_million
                )
        with on_sqlite(folder / "sqlite") as deployment:
            people = People(deployment)
            with verifier_processes(deployment, PROCESSES, VERIFIERS_EACH) as processes:
                sessions = [people.log_in() for _ in range(options.revocations)]
                measure_latency(report, "1 server, SQLite", sessions, people.log_out, processes)
                sessions = [people.log_in() for _ in range(options.revocations)]
                by_cli = stack.enter_context(deployment.command_line())
                measure_latency(
                    report, "1 server, SQLite, by the command line", sessions, lambda each: by_cli(each.sid), processes
                )
            if options.million:
                measure_million(report, deployment, "1 server, SQLite", options.million, options.after_million)
            measure_many(report, deployment, people)
    publish(report, options.json)


if __name__ == "__main__":
    main()
