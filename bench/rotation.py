"""Fifty rotations of the signing key under load, changes of the algorithm among them; then a key is revoked.

``python -m bench.rotation [--rotations N] [--json FILE]``. Real processes throughout: two replicas of ``jotgate serve``
behind nginx on PostgreSQL and Redis, one verifier in each of 4 processes, 400 verifications a second each. Time is
compressed by settings, not by a clock: the key set may be kept for a second, so that a key is published for three
before it signs, and each signs for five. New tokens come all the time, from either replica. What is counted: requests
that were refused, and fetches of the key set that neither the schedule, a key event nor the cooldown explains.
"""

import itertools
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.fetches import BEYOND
from bench.report import Report, Row, Target, publish, run_options
from bench.revocation import People, percentile
from bench.revocation_servers import AUDIENCE, Deployment, on_postgresql
from bench.rotation_verifiers import header_of
from jotgate.server.keys import KeyRing
from jotgate.server.log import get_log
from jotgate.server.rules.keys import Standing, is_mature, standing
from jotgate.server.sealing import MasterKey
from jotgate.server.settings import Settings

PACKAGES = ("jotgate", "granian", "cryptography", "msgspec", "asyncpg", "redis")
PROCESSES = 4
SETTINGS = {"JOTGATE_JWKS_MAX_AGE_S": "1", "JOTGATE_KEY_ROTATION_S": "5"}
SWITCHES = ("Ed25519", "RS256", "ML-DSA-44", "ES256")
TOKENS_ALIVE = 40
LEAST_RATE = 1_000
WITHIN_S = 60.0
_ROTATED_WITHIN_S = 30.0


class VerifierProcess:
    """One process with a verifier under load, asked line by line."""

    def __init__(self, deployment: Deployment) -> None:
        command = [sys.executable, "-m", "bench.rotation_verifiers", deployment.issuer, AUDIENCE]
        self._process = subprocess.Popen(
            [*command, str(deployment.ca_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")},
        )
        self._read()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def report(self) -> dict[str, Any]:
        """Ask for what has happened."""
        self.tell({"report": True})
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process with a verifier ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WITHIN_S)


class Traffic:
    """Sessions that are refreshed all the time, and whose tokens every verifier gets."""

    def __init__(self, people: People, processes: Sequence[VerifierProcess]) -> None:
        self._people = people
        self._processes = processes
        self._sessions = itertools.cycle([[people.log_in().refresh_token] for _ in range(8)])
        self._tokens: list[str] = []
        self._kept: list[str] = []
        self.refreshes = 0
        self.refused: Counter[str] = Counter()

    @property
    def tokens(self) -> Sequence[str]:
        """The youngest tokens."""
        return tuple(self._tokens)

    def go_on(self) -> str:
        """Refresh one session, and give its token to everybody; the `kid` it was signed with."""
        session = next(self._sessions)
        answer = self._people.http.post("/v1/refresh", json={"refresh_token": session[0]})
        self.refreshes += 1
        if answer.status_code != 200:
            self.refused[f"refresh: {answer.status_code}"] += 1
            return ""
        session[0] = answer.json()["refresh_token"]
        self._tokens = [*self._tokens[-TOKENS_ALIVE + 1 :], answer.json()["access_token"]]
        self._tell()
        return header_of(self._tokens[-1])["kid"]

    def drop(self, kid: str) -> None:
        """Use no token of this key any more."""
        self._tokens = [token for token in self._tokens if header_of(token)["kid"] != kid]
        self._tell()

    def keep_retired(self) -> int:
        """Go on with the tokens of keys that sign no more, which new ones would push out; how many there are."""
        self._kept = [token for token in self._tokens if header_of(token)["kid"] != header_of(self._tokens[-1])["kid"]]
        return len(self._kept)

    def _tell(self) -> None:
        for process in self._processes:
            process.tell({"tokens": self._kept + self._tokens})


@contextmanager
def ring_of(deployment: Deployment, settings: Settings) -> Iterator[KeyRing]:
    """The keys as a server that starts with these settings has them."""
    store = deployment.store()
    try:
        assert settings.master_key is not None
        yield KeyRing(
            store,
            MasterKey.from_text(settings.master_key.reveal(), "JOTGATE_MASTER_KEY"),
            settings,
            monotonic=time.monotonic,
            clock=lambda: int(time.time()),
            random=secrets.token_bytes,
            log=get_log(),
        )
    finally:
        store.close_now()


def prefer(deployment: Deployment, algorithm: str) -> None:
    """Begin to switch the algorithm, as the start of a server with another setting does."""
    own = {name: value for name, value in deployment.environment.items() if name.startswith("JOTGATE_")}
    settings = Settings.from_env(own | {"JOTGATE_SIGNING_ALGORITHM": algorithm}, data_dir=deployment.data)
    with ring_of(deployment, settings) as ring:
        ring.open()


def measure(report: Report, deployment: Deployment, processes: Sequence[VerifierProcess], rotations: int) -> None:
    """Rotate, and revoke at last."""
    people = People(deployment)
    traffic = Traffic(people, processes)
    seen = [traffic.go_on()]
    algorithms: list[str] = []
    switch_at = {(number + 1) * rotations // (len(SWITCHES) + 1): name for number, name in enumerate(SWITCHES)}
    began = turned_at = time.monotonic()
    before = sum((Counter(process.report()["fetched"]) for process in processes), Counter())
    while len(seen) <= rotations:
        kid = traffic.go_on()
        if kid and kid not in seen:
            seen.append(kid)
            turned_at = time.monotonic()
            algorithms.append(header_of(traffic.tokens[-1])["alg"])
            if len(seen) - 1 in switch_at:
                prefer(deployment, switch_at[len(seen) - 1])
        if time.monotonic() - turned_at > _ROTATED_WITHIN_S:
            raise TimeoutError("no rotation came")
        time.sleep(0.02)
    took_s = time.monotonic() - began
    reports = [process.report() for process in processes]
    refused = traffic.refused + sum((Counter(each["refused"]) for each in reports), Counter())
    verified = sum(each["verified"] for each in reports)
    fetched = sum((Counter(each["fetched"]) for each in reports), Counter()) - before
    used = [name for name, _ in itertools.groupby(algorithms)]
    if set(SWITCHES) - set(used):
        raise RuntimeError(f"not every algorithm came to sign: {used}")
    rows = [
        Row.figure(f"{len(seen) - 1} rotations ({' → '.join(used)}) took", took_s, "s"),
        Row.figure("verifications", verified),
        Row.figure("verifications a second, in all", verified / took_s, "/s"),
        Row.figure("refreshes, each with a new token", traffic.refreshes),
        Row.figure("requests refused" + (f" {dict(refused)}" if refused else ""), sum(refused.values())),
        *fetch_rows("", fetched),
    ]
    report.rows += rows
    report.targets += [
        Target("requests refused during rotations", 0, sum(refused.values())),
        Target(f"fetches {BEYOND}", 0, fetched[BEYOND]),
        Target(f"seconds for {LEAST_RATE:,} verifications", 1, LEAST_RATE * took_s / verified),
    ]
    revoke(report, deployment, processes, traffic)


def fetch_rows(name: str, fetched: Counter[str]) -> Iterator[Row]:
    """Give how often the key set was fetched, and why."""
    yield Row.figure(f"{name}fetches of the key set, by {PROCESSES} verifiers", fetched.total())
    for reason in sorted({*fetched, BEYOND}):
        yield Row.figure(f"{name}of these {reason}", fetched[reason])


def revoke(report: Report, deployment: Deployment, processes: Sequence[VerifierProcess], traffic: Traffic) -> None:
    """Revoke the key that signs, and see its tokens refused everywhere, and no other."""
    others = traffic.keep_retired()
    kid = wait_for_mature_successor(deployment, traffic)
    doomed = [token for token in traffic.tokens if header_of(token)["kid"] == kid]
    doomed += [traffic.tokens[-1] for _ in range(12) if traffic.go_on() == kid]
    traffic.drop(kid)
    before: Counter[str] = Counter()
    for process in processes:
        process.tell({"watch": doomed})
        before += Counter(process.report()["fetched"])
    time.sleep(0.3)
    with ring_of(deployment, deployment.settings()) as ring:
        ring.reload()
        began = time.monotonic()
        ring.revoke(kid)
        answered = time.monotonic()
    deadline = time.monotonic() + WITHIN_S
    reports: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    while time.monotonic() < deadline:
        if traffic.go_on() == kid:
            traffic.drop(kid)  # signed in the instant before that replica had heard: it is refused, too
        reports = [process.report() for process in processes]
        refused += sum((Counter(each["refused"]) for each in reports), Counter())
        if all(at is not None for each in reports for at in each["watched"]):
            break
        time.sleep(0.05)
    for _ in range(100):
        traffic.go_on()
    reports = [process.report() for process in processes]
    refused += sum((Counter(each["refused"]) for each in reports), Counter())
    fetched = sum((Counter(each["fetched"]) for each in reports), Counter()) - before
    after_ms = [max(at - answered, 0) * 1000 for each in reports for at in each["watched"]]
    name = f"revoked key, {len(doomed)} tokens of it, {others} of others"
    report.rows += [
        Row.figure(f"{name}: the revocation itself", (answered - began) * 1000, "ms"),
        Row.of(f"{name}: until a verifier refuses a token, p50", after_ms, "ms"),
        Row.figure(f"{name}: until every verifier refuses every token", max(after_ms), "ms", len(after_ms)),
        Row.figure(
            f"{name}: other requests refused" + (f" {dict(refused + traffic.refused)}" if refused else ""),
            sum(refused.values()) + sum(traffic.refused.values()),
        ),
        Row.figure(f"{name}: p99", percentile(after_ms, 99), "ms", len(after_ms)),
        *fetch_rows("revoked key: ", fetched),
    ]
    report.targets += [
        Target("revoked key: all its tokens refused at every verifier, ms", 1000, max(after_ms)),
        Target("revoked key: other tokens refused", 0, sum(refused.values())),
        Target(f"revoked key: fetches {BEYOND}", 0, fetched[BEYOND]),
    ]


def wait_for_mature_successor(deployment: Deployment, traffic: Traffic) -> str:
    """Wait until verifiers know for certain the key that is next; which one signs until then."""
    deadline = time.monotonic() + WITHIN_S
    with ring_of(deployment, deployment.settings()) as ring:
        while time.monotonic() < deadline:
            kid = traffic.go_on()
            now, rows = int(time.time()), ring.rows()
            following = [row for row in rows if row.purpose == "access" and standing(row) is Standing.NEXT]
            if kid and any(is_mature(row, now=now, schedule=ring.schedule("access")) for row in following):
                return kid
            time.sleep(0.02)
    raise TimeoutError("no next key became old enough")


def main() -> None:
    """Measure, and print."""
    options = run_options("Rotations of the signing key under load, and a revocation of it.", rotations=50)
    report = Report("rotation", PACKAGES)
    with tempfile.TemporaryDirectory(prefix="jotgate-bench-") as name, ExitStack() as stack:
        deployment = stack.enter_context(on_postgresql(Path(name) / "postgresql", SETTINGS))
        processes: list[VerifierProcess] = []
        for _ in range(PROCESSES):
            processes.append(VerifierProcess(deployment))
            stack.callback(processes[-1].close)
        measure(report, deployment, processes, options.rotations)
    publish(report, options.json)


if __name__ == "__main__":
    main()
