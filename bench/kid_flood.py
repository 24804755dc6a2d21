"""100,000 tokens with random key ids, again and again, and what other users of the same verifier feel of them.

``python -m bench.kid_flood [--rounds N] [--json FILE]``. A real issuer over TLS, which counts how often its key set is
asked for; one process with a verifier that follows it, without a cache of verified tokens, then another one with it.
Somebody's good token is verified every 2 ms, and the call alone is timed, while nothing else happens or another thread

- presents 2,000 strangers' tokens a second;
- presents strangers' tokens without a pause;
- presents tokens without a pause whose key is known and whose signature is not good;
- or turns an empty loop: what any Python code that never pauses does to whoever shares its interpreter. An uncached
  verification lets the interpreter go while the signature is checked, and gets it back after the 5 ms of
  `sys.getswitchinterval()`.

Then on an event loop, to which another process sends 2,000 strangers' tokens a second beside the good ones; each gets a
task of its own. A good token is timed from when it is sent until it is verified, so that waiting for the loop counts.
"""

import asyncio
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2

from bench.kid_flood_arrivals import END, STRANGER
from bench.kid_flood_issuer import COUNTED_PATH
from bench.report import Report, Row, Target, publish, run_options
from bench.revocation import People, percentile
from bench.revocation_servers import AUDIENCE, Deployment, on_sqlite
from jotgate import BadSignature, UnknownKey, Verifier

PACKAGES = ("jotgate", "granian", "cryptography", "msgspec")
KIDS = 100_000
FLOOD_RATE, USER_RATE = 2_000, 500
STRETCH_S = 2.0
COOLDOWN_S = 30.0  # the default
_ENDS_WITHIN_S = 30.0
SETTINGS = {"JOTGATE_ACCESS_TOKEN_TTL_S": "3600"}  # longer than a run takes
QUIET, PACED, FLOODED = "quiet", f"a thread with {FLOOD_RATE:,} random kids a second", "a thread with random kids"
BAD, BUSY = "a thread with bad signatures", "a thread with an empty loop"
LOOP_QUIET, LOOP_FLOODED = "event loop, quiet", f"event loop with {FLOOD_RATE:,} random kids a second"


def strangers(good: str, count: int) -> Sequence[str]:
    """Give tokens that each name a key of their own. Made beforehand: the flood has nothing to do but present them."""
    _, payload, signature = good.split(".")
    headers = (json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": os.urandom(16).hex()}) for _ in range(count))
    return [f"{urlsafe_b64encode(each.encode()).decode().rstrip('=')}.{payload}.{signature}" for each in headers]


def with_bad_signature(good: str) -> str:
    """Give the token with the first character of its signature changed."""
    signed, _, signature = good.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


class Flood:
    """Strangers' tokens for one verifier."""

    def __init__(self, verifier: Verifier, good: str, tokens: Sequence[str]) -> None:
        self._verifier = verifier
        self._tokens = itertools.cycle(tokens)
        self._bad = with_bad_signature(good)
        self.refused = 0

    def stranger(self) -> None:
        """Present a token that names a random key."""
        try:
            self._verifier.verify(next(self._tokens))
        except UnknownKey:
            self.refused += 1

    async def astranger(self) -> None:
        """Do the same in a task."""
        try:
            await self._verifier.averify(next(self._tokens))
        except UnknownKey:
            self.refused += 1

    def bad_signature(self) -> None:
        """Present a token of a known key that somebody else has signed."""
        try:
            self._verifier.verify(self._bad)
        except BadSignature:
            return
        raise RuntimeError("a bad signature was taken")


def turn() -> None:
    """Do nothing, for about as long as a stranger's token takes."""
    for _ in range(500):
        pass


def pace(act: Callable[[], None], rate: float, over: threading.Event) -> None:
    """Do it so many times a second, until it is over."""
    due = time.perf_counter()
    while not over.wait(max(due - time.perf_counter(), 0)):
        act()
        due += 1 / rate


def hurry(act: Callable[[], None], over: threading.Event) -> None:
    """Do it without a pause."""
    while not over.is_set():
        act()


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let another thread do it meanwhile; what it raises is raised."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work, over)
        try:
            yield
        finally:
            over.set()
        done.result()


def use(verifier: Verifier, good: str) -> list[float]:
    """Verify a good token at the user's rate for a stretch; how long each call took, in microseconds."""
    took: list[float] = []
    due = time.perf_counter()
    end = due + STRETCH_S
    while due < end:
        time.sleep(max(due - time.perf_counter(), 0))
        began = time.perf_counter()
        verifier.verify(good)
        took.append((time.perf_counter() - began) * 1e6)
        due = max(due + 1 / USER_RATE, began)
    return took


async def use_in_loop(verifier: Verifier, good: str, flood: Flood, strangers_rate: int) -> list[float]:
    """Serve what arrives from another process; each good token's microseconds from there until it is verified."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    tasks: set[asyncio.Task[None]] = set()
    over = asyncio.Event()

    async def serve(sent_at: float) -> None:
        await verifier.averify(good)
        took.append((time.monotonic() - sent_at) * 1e6)

    def receive(arrivals: socket.socket) -> None:
        said = arrivals.recv(64)
        if said == END:
            over.set()
            return
        tasks.add(task := loop.create_task(flood.astranger() if said == STRANGER else serve(float(said))))
        task.add_done_callback(tasks.discard)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        numbers = [str(each) for each in (theirs.fileno(), STRETCH_S, USER_RATE, strangers_rate)]
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.kid_flood_arrivals", *numbers, pass_fds=[theirs.fileno()]
        )
        loop.add_reader(ours, receive, ours)
        async with asyncio.timeout(STRETCH_S + _ENDS_WITHIN_S):
            await over.wait()
        loop.remove_reader(ours)
        await sender.wait()
    await asyncio.gather(*tasks)
    return took


def stretches(verifier: Verifier, good: str, flood: Flood) -> dict[str, Callable[[], list[float]]]:
    """Give what is measured turn by turn."""

    def use_beside(work: Callable[[threading.Event], None]) -> list[float]:
        with beside(work):
            return use(verifier, good)

    return {
        QUIET: lambda: use(verifier, good),
        PACED: lambda: use_beside(partial(pace, flood.stranger, FLOOD_RATE)),
        FLOODED: lambda: use_beside(partial(hurry, flood.stranger)),
        BAD: lambda: use_beside(partial(hurry, flood.bad_signature)),
        BUSY: lambda: use_beside(partial(hurry, turn)),
        LOOP_QUIET: lambda: asyncio.run(use_in_loop(verifier, good, flood, 0)),
        LOOP_FLOODED: lambda: asyncio.run(use_in_loop(verifier, good, flood, FLOOD_RATE)),
    }


def measure(
    report: Report, deployment: Deployment, name: str, cache_entries: int, tokens: Sequence[str], rounds: int
) -> None:
    """Measure all stretches in turn with one verifier."""
    people = People(deployment)
    good = people.log_in().access_token
    samples: dict[str, list[float]] = {}
    with Verifier(
        issuer=deployment.issuer, audience=AUDIENCE, ca_file=deployment.ca_file, cache_entries=cache_entries
    ) as verifier:
        verifier.wait_ready(30)
        verifier.verify(good)
        flood = Flood(verifier, good, tokens)
        ways = stretches(verifier, good, flood)
        began = time.monotonic()
        for _ in range(rounds):
            for way, run in ways.items():
                samples.setdefault(way, []).extend(run())
        ended = time.monotonic()
    if flood.refused < KIDS:
        raise RuntimeError(f"the flood was of {flood.refused:,} tokens only")
    fetched = [at for at in fetches(people.http) if at >= began]
    if not fetched:
        raise RuntimeError("the issuer counted nothing: not even the fetch that the first stranger's token is due")
    for way, took in samples.items():
        report.rows.append(Row.of(f"{name}, {way}: p50", took, "µs"))
        report.rows.append(Row.figure(f"{name}, {way}: p99", percentile(took, 99), "µs", len(took)))
    gaps = [b - a for a, b in itertools.pairwise(fetched)]
    report.rows += [
        Row.figure(f"{name}: tokens with random kids refused", flood.refused),
        Row.figure(f"{name}: fetches of the key set that the issuer counted", len(fetched)),
    ]
    if gaps:
        report.rows.append(Row.figure(f"{name}: shortest time between two of them", min(gaps), "s", len(gaps)))
    for way, against in ((PACED, QUIET), (LOOP_FLOODED, LOOP_QUIET), (FLOODED, BUSY)):
        ratio = percentile(samples[way], 99) / percentile(samples[against], 99)
        report.targets.append(Target(f"{name}: p99, {way}, as against {against}", 2.0, ratio))
    # The first comes at once; each makes the next one of the schedule later than the next cooldown's.
    allowed = 1 + (ended - began) // COOLDOWN_S
    report.targets.append(Target(f"{name}: fetches, one in each cooldown of {COOLDOWN_S:.0f} s", allowed, len(fetched)))


def fetches(http: httpx2.Client) -> Sequence[float]:
    """Ask the issuer when its key set was asked for."""
    answer: list[float] = http.get(COUNTED_PATH).json()
    return answer


def main() -> None:
    """Measure, and print."""
    options = run_options("Tokens that name random keys, and what other users feel of them.", rounds=5)
    report = Report("kid_flood", PACKAGES)
    with (
        tempfile.TemporaryDirectory(prefix="jotgate-bench-") as name,
        on_sqlite(Path(name) / "sqlite", SETTINGS, serve=("-m", "bench.kid_flood_issuer")) as deployment,
    ):
        tokens = strangers(People(deployment).log_in().access_token, KIDS)
        for kind, cache_entries in (("uncached", 0), ("cached", 4096)):
            measure(report, deployment, kind, cache_entries, tokens, options.rounds)
    publish(report, options.json)


if __name__ == "__main__":
    main()
