"""Whether time tells who has an account: logins, sign-ups and forgotten passwords, for known and unknown addresses.

``python -m bench.enumeration [--pairs N] [--json FILE]``. A real ``jotgate serve`` over HTTPS, SQLite, mails into a
folder. As many requests are about addresses with an account as about addresses without, one after the other in an order
that is drawn; what is told is the difference of both medians, with a 95 % interval by bootstrap.
"""

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from argon2 import PasswordHasher

from bench.report import Report, Row, Target, publish, run_options
from bench.start import free_port
from jotgate.core.encoding import encode_segment
from jotgate.server.records import Account
from jotgate.server.store.sqlite import SqliteStore

PACKAGES = ("jotgate", "granian", "argon2-cffi", "cryptography")
WITHIN_MS = 1.0
ACCOUNTS = 1_000
PASSWORD = "four plain words in a row"
RESAMPLES = 1_000
_NO_LIMITS = {
    f"JOTGATE_LIMIT_{kind}": "1000000/second"
    for kind in ("LOGINS", "SIGNUPS", "MAILS", "MAILS_TO", "STRANGERS", "SESSIONS", "REQUESTS")
}
_SERVE = "import sys; from jotgate.cli import main; sys.exit(main())"

Ask = Callable[[httpx2.Client, str], int]


def log_in(client: httpx2.Client, email: str) -> int:
    """Guess wrong."""
    body = {"email": email, "password": "not the password at all", "delivery": "body"}
    return client.post("/v1/login", json=body).status_code


def sign_up(client: httpx2.Client, email: str) -> int:
    """Ask for an account."""
    return client.post("/v1/signup", json={"email": email, "password": PASSWORD}).status_code


def forget(client: httpx2.Client, email: str) -> int:
    """Ask for a new password."""
    return client.post("/v1/password/forgot", json={"email": email}).status_code


FLOWS: Sequence[tuple[str, Ask, int]] = (
    ("login, wrong password", log_in, 401),
    ("sign-up", sign_up, 202),
    ("forgotten password", forget, 202),
)


def main() -> None:
    """Run it."""
    options = run_options("Whether time tells who has an account.", pairs=2_000)
    report = Report("enumeration", PACKAGES)
    draw = random.Random(20_261_201)  # noqa: S311 - an order to measure in, not a secret
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as client:
        for name, ask, expected in FLOWS:
            known, unknown = measure(client, ask, expected, options.pairs, draw)
            report.rows.append(Row.of(f"{name}: known address", known, "ms"))
            report.rows.append(Row.of(f"{name}: unknown address", unknown, "ms"))
            low, high = difference(known, unknown, draw)
            middle = statistics.median(known) - statistics.median(unknown)
            report.rows.append(Row(f"{name}: difference of the medians", middle, "ms", low, high, options.pairs))
            report.targets.append(Target(f"{name}: farthest end of that interval, ms", WITHIN_MS, max(-low, high)))
    publish(report, options.json)


def measure(
    client: httpx2.Client, ask: Ask, expected: int, pairs: int, draw: random.Random
) -> tuple[list[float], list[float]]:
    """Return the times in milliseconds of the requests about known and about unknown addresses."""
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    # Alike in length; each has its turn as often as the others, so that no account's guesses have to wait.
    asked = [(kind, f"{kind[:1]}{number % ACCOUNTS:06}@example.com") for kind in times for number in range(pairs)]
    draw.shuffle(asked)
    for kind, email in asked:
        began = time.perf_counter()
        status = ask(client, email)
        times[kind].append((time.perf_counter() - began) * 1_000)
        assert status == expected, status
    return times["known"], times["unknown"]


def difference(known: Sequence[float], unknown: Sequence[float], draw: random.Random) -> tuple[float, float]:
    """Return the 95 % interval of the difference of the medians, by the bootstrap's percentiles."""
    found = sorted(
        statistics.median(draw.choices(known, k=len(known))) - statistics.median(draw.choices(unknown, k=len(unknown)))
        for _ in range(RESAMPLES)
    )
    return found[RESAMPLES * 25 // 1_000], found[-RESAMPLES * 25 // 1_000 - 1]


@contextmanager
def serving(folder: Path) -> Iterator[httpx2.Client]:
    """Start a server that has some accounts, and give a client with a connection to it."""
    data, port = folder / "data", free_port()
    data.mkdir(mode=0o700)
    fill(data / "jotgate.sqlite3")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    settings = _NO_LIMITS | {"JOTGATE_GUESSES_BEFORE_BACKOFF": "100", "JOTGATE_SIGNUP": "verified"}
    command = [sys.executable, "-c", _SERVE, "serve", "--data", str(data), "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=inherited | settings
    )
    try:
        assert server.stdout is not None
        assert any(line.startswith("ready:") for line in server.stdout)
        url = f"https://localhost:{port}"
        with httpx2.Client(base_url=url, verify=str(data / "tls" / "ca.pem"), trust_env=False, timeout=30) as client:
            yield client
    finally:
        server.terminate()
        server.wait(30)


def fill(database: Path) -> None:
    """Make the known accounts; their passwords are never right, so that one hash serves for all."""
    password_hash = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1).hash(PASSWORD)
    store = SqliteStore(database)
    store.open()
    accounts = [
        Account(
            id=encode_segment(number.to_bytes(16)),
            email=f"k{number:06}@example.com",
            password_hash=password_hash,
            scopes=(),
            created_at=0,
        )
        for number in range(ACCOUNTS)
    ]
    asyncio.run(store.add_accounts(accounts))
    store.close_now()


if __name__ == "__main__":
    main()
