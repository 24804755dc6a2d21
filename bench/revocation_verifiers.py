"""One process with verifiers, as an API has them: tells when each of them heard of a revocation, and when a token of it
was first refused. Started by ``bench.revocation``, which it answers line by line in JSON.

It reads ``{"watch": token, "sid": sid}``, answers ``{"watching": sid}`` while it verifies that token every 10 ms, and
then, once all its verifiers have heard of the session's end and the token was refused, ``{"ended": sid, "heard": [...],
"refused": ns}``. ``{"measure": token}`` asks what a verification costs and how much memory the process has. Times are
nanoseconds of the system's monotonic clock, which all processes share.
"""

import json
import resource
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jotgate import Claims, JotgateError, TokenRevoked, Verifier
from jotgate.core.revocations import Revocation

PROBE_EVERY_S = 0.010
ENDED_WITHIN_S = 60.0
_VERIFICATIONS = 20_000
_PARTS = 20


class Heard:
    """When each verifier heard of the sessions that are watched."""

    def __init__(self, verifiers: int) -> None:
        self._verifiers = verifiers
        self._changed = threading.Condition()
        self._claims: Claims | None = None
        self._times: dict[int, int] = {}

    def watch(self, claims: Claims) -> None:
        """Begin with the next one."""
        with self._changed:
            self._claims, self._times = claims, {}

    def tell(self, verifier: int, revocation: Revocation) -> None:
        """Take in what a verifier heard; called on its thread, right after the new state counts."""
        now = time.monotonic_ns()
        with self._changed:
            if self._claims is not None and revocation.covers(self._claims):
                self._times.setdefault(verifier, now)
                self._changed.notify_all()

    def all(self) -> list[int]:
        """Wait until every verifier has heard, and give the times."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._times) == self._verifiers, ENDED_WITHIN_S):
                raise TimeoutError(f"{len(self._times)} of {self._verifiers} verifiers heard of the revocation")
            return list(self._times.values())


def first_refusal(verifier: Verifier, token: str) -> int:
    """Verify every 10 ms until that is refused; when it was."""
    deadline = time.monotonic() + ENDED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            verifier.verify(token)
        except TokenRevoked:
            return time.monotonic_ns()
        time.sleep(PROBE_EVERY_S)
    raise TimeoutError("the revoked token was never refused")


def measure(verifier: Verifier, token: str) -> Mapping[str, Any]:
    """Time verifications of one token, which is remembered: what is left is mostly the look at the revocations."""
    verify = verifier.verify
    verify(token)
    parts: list[float] = []
    for _ in range(_PARTS):
        began = time.perf_counter_ns()
        for _ in range(_VERIFICATIONS // _PARTS):
            verify(token)
        parts.append((time.perf_counter_ns() - began) / (_VERIFICATIONS // _PARTS) / 1000)
    status = verifier.status()
    return {"verify_us": statistics.median(parts), "resident_kib": resident_kib(), "status": repr(status)}


def resident_kib() -> int:
    """Return the memory that the process has now (Linux), or had at most."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize() // 1024


def say(answer: Mapping[str, Any]) -> None:
    """Answer with one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def make_verifiers(issuer: str, audience: str, ca_file: str, count: int) -> Sequence[Verifier]:
    """Make verifiers that are ready, and say how long the first of them took."""
    before = resident_kib()
    verifiers: list[Verifier] = []
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        verifier = Verifier(issuer=issuer, audience=audience, ca_file=ca_file)
        verifier.wait_ready(ENDED_WITHIN_S)
        took.append(time.perf_counter() - began)
        verifiers.append(verifier)
    say({"ready": took, "resident_kib": [before, resident_kib()]})
    return verifiers


def main() -> None:
    """Serve the parent until it closes the pipe."""
    issuer, audience, ca_file, count = sys.argv[1:]
    verifiers = make_verifiers(issuer, audience, ca_file, int(count))
    heard = Heard(len(verifiers))
    for number, verifier in enumerate(verifiers):
        verifier.on_revoked(partial(heard.tell, number))
    for line in sys.stdin:
        asked = json.loads(line)
        if "measure" in asked:
            say(measure(verifiers[0], asked["measure"]))
            continue
        token, sid = asked["watch"], asked["sid"]
        heard.watch(verifiers[0].verify(token))
        say({"watching": sid})
        refused = first_refusal(verifiers[0], token)
        say({"ended": sid, "heard": heard.all(), "refused": refused})
    for verifier in verifiers:
        verifier.close()


if __name__ == "__main__":
    try:
        main()
    except (JotgateError, TimeoutError) as fault:
        say({"fault": f"{type(fault).__name__}: {fault}"})
        sys.exit(1)
