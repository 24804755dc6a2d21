"""Tokens that name random keys, by the hundred thousand, and what other users of the same verifier feel of them.

``python -m bench.kid_flood [--rounds N] [--json FILE]``. A real server on SQLite over TLS; an API's event loop with one
verifier that follows it. Somebody's good token is due every 2 ms, never remembered, and timed from when it was due
until it is verified: waiting for the loop counts. Meanwhile nobody, or an attacker, presents 2,000 tokens a second
with random ``kid``s, each in a task of its own as a request is. Quiet and flooded stretches alternate.
"""

import asyncio
import itertools
import json
import os
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.report import Report, Row, Target, publish, run_options
from bench.revocation import People, percentile
from bench.revocation_servers import AUDIENCE, on_sqlite
from jotgate import UnknownKey, Verifier
from jotgate.verifier.transport import Answer, HttpsTransport

PACKAGES = ("jotgate", "granian", "cryptography", "msgspec")
FLOOD_RATE, USER_RATE = 2_000, 500
STRETCH_S = 5.0
COOLDOWN_S = 30.0  # the default
_AT_ONCE = 10


class Counting(HttpsTransport):
    """The real transport, which notes when the key set was fetched."""

    def __init__(self, ca_file: Path) -> None:
        super().__init__(ca_file)
        self.fetched: list[float] = []

    def __call__(self, url: str, timeout_s: float) -> Answer:
        """Fetch, and note it."""
        if url.endswith("/jwks.json"):
            self.fetched.append(time.monotonic())
        return super().__call__(url, timeout_s)


def strangers(good: str) -> Iterator[str]:
    """Give tokens that each name a key of their own; making them is cheaper than refusing them."""
    _, payload, signature = good.split(".")
    while True:
        header = json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": os.urandom(16).hex()}).encode()
        yield f"{urlsafe_b64encode(header).decode().rstrip('=')}.{payload}.{signature}"


async def flood(verifier: Verifier, tokens: Iterator[str], until: float) -> int:
    """Present tokens at the flood's rate, a few at once; how many were refused."""
    refused = 0

    async def one(token: str) -> None:
        nonlocal refused
        try:
            await verifier.averify(token)
        except UnknownKey:
            refused += 1

    tasks: set[asyncio.Task[None]] = set()
    due = time.perf_counter()
    while time.perf_counter() < until:
        for token in itertools.islice(tokens, _AT_ONCE):
            tasks.add(task := asyncio.create_task(one(token)))
            task.add_done_callback(tasks.discard)
        due += _AT_ONCE / FLOOD_RATE
        await asyncio.sleep(max(due - time.perf_counter(), 0))
    await asyncio.gather(*tasks)
    return refused


async def use(verifier: Verifier, token: str, until: float) -> list[float]:
    """Verify a good token whenever it is due; how long each took from then on, in microseconds."""
    took: list[float] = []
    due = time.perf_counter()
    while due < until:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await verifier.averify(token)
        took.append((time.perf_counter() - due) * 1e6)
        due += 1 / USER_RATE
    return took


async def measure(report: Report, verifier: Verifier, transport: Counting, good: str, rounds: int) -> None:
    """Alternate quiet and flooded stretches."""
    await verifier.await_ready(30)
    await verifier.averify(good)
    tokens = strangers(good)
    quiet: list[float] = []
    flooded: list[float] = []
    refused = 0
    transport.fetched.clear()
    began = time.monotonic()
    for _ in range(rounds):
        quiet += await use(verifier, good, time.perf_counter() + STRETCH_S)
        until = time.perf_counter() + STRETCH_S
        during, count = await asyncio.gather(use(verifier, good, until), flood(verifier, tokens, until))
        flooded += during
        refused += count
    add(report, "quiet", quiet)
    add(report, f"flooded, {FLOOD_RATE:,} random kids a second", flooded)
    gaps = [b - a for a, b in itertools.pairwise(transport.fetched)]
    allowed = 1 + (time.monotonic() - began) // COOLDOWN_S
    report.rows += [
        Row("tokens with random kids refused", refused, "", 0, 0, 1),
        Row("fetches of the key set meanwhile", len(transport.fetched), "", 0, 0, 1),
        Row("shortest time between two of them", min(gaps, default=0), "s", 0, 0, len(gaps)),
    ]
    ratio = percentile(flooded, 99) / percentile(quiet, 99)
    report.targets += [
        Target("other users' p99, flooded as against quiet", 2.0, ratio),
        Target(f"fetches in all, one in each cooldown of {COOLDOWN_S:.0f} s", allowed, len(transport.fetched)),
    ]


def add(report: Report, name: str, samples: Sequence[float]) -> None:
    """Add the median and the 99th percentile."""
    report.rows.append(Row.of(f"{name}: a good token, p50", samples, "µs"))
    report.rows.append(Row(f"{name}: a good token, p99", percentile(samples, 99), "µs", 0, 0, len(samples)))


def main() -> None:
    """Measure, and print."""
    options = run_options("Tokens that name random keys, and what other users feel of them.", rounds=10)
    report = Report("kid_flood", PACKAGES)
    with tempfile.TemporaryDirectory(prefix="jotgate-bench-") as name, ExitStack() as stack:
        deployment = stack.enter_context(on_sqlite(Path(name) / "sqlite"))
        good = People(deployment).log_in().access_token
        transport = Counting(deployment.ca_file)
        verifier = stack.enter_context(
            Verifier(issuer=deployment.issuer, audience=AUDIENCE, transport=transport, cache_entries=0)
        )
        asyncio.run(measure(report, verifier, transport, good, options.rounds))
    publish(report, options.json)


if __name__ == "__main__":
    main()
