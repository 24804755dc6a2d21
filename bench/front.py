"""The front door under a flood of logins: what users of a protected endpoint feel, and how many logins still succeed.

``python -m bench.front [--rounds N] [--json FILE]``. One process serves an API with jotgate mounted: a protected GET
beside `POST /auth/v1/login`, with the limits that it comes with. 200 connections, each from a loopback address of its
own, guess at 5,000 accounts, once at a pace (1,000 a second together) and once as fast as answers come. Meanwhile
another process reads the protected endpoint 200 times a second. Quiet and flooded stretches take turns.

Then nobody floods, and 16 connections log in with right passwords, one after the other, for one hash worker and for as
many as there are cores: beside them stands how often the same threads verify the same hash with nothing around it,
measured in turns. What a flood does to memory is read from /proc.
"""

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from argon2 import PasswordHasher

from bench.front_flood import CONNECTIONS
from bench.report import Report, Row, Target, publish, run_options, usable_cores
from bench.sessions_load import Work, drive, parse_answer
from bench.sessions_processes import ROOT, Server, free_port, granian, running
from bench.sessions_sides import Accounts, Logins, Post, log_in, seed_jotgate
from jotgate.server import Settings

PACKAGES = ("jotgate", "granian", "argon2-cffi", "starlette", "uvloop")
STRETCH_S = 8.0
SETTLE_S = 1.0
READS_PER_S = 200
PACE = 1_000
LOGINS_S = 10.0
_PATH = "/me"
_LINES = 16


@contextmanager
def served(folder: Path, accounts: Accounts, hash_workers: int) -> Iterator[Server]:
    """Run the API, on all cores, until the block ends."""
    port = free_port()
    folder.mkdir()
    issuer, data_dir = f"https://localhost:{port}/auth", folder / "data"
    seed_jotgate(Settings(issuer=issuer, data_dir=data_dir, http=True), accounts)
    orders = {"issuer": issuer, "data_dir": str(data_dir), "settings": {"hash_workers": hash_workers}}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    variables = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "BENCH_SERVER": json.dumps(orders)}
    command = granian("bench.sessions_api:make_asgi", port, "--interface", "asgi", "--factory")
    with running(command, port=port, folder=folder, environment=inherited | variables, cores=usable_cores()) as server:
        yield server


def read(port: int, token: bytes, seconds: float) -> list[float]:
    """Read the protected endpoint at its pace; how long each answer took, in milliseconds.

    Raises:
        RuntimeError: somebody with a good token was refused.
    """
    request = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n" % (_PATH.encode(), token)
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            time.sleep(max(due - time.perf_counter(), 0))
            began = time.perf_counter()
            line.sendall(request)
            received = b""
            while (answer := parse_answer(received)) is None:
                received += line.recv(65_536)
            if answer[0] != 200:
                raise RuntimeError(f"the protected endpoint answered {answer[0]}")
            took.append((time.perf_counter() - began) * 1e3)
            due = max(due + 1 / READS_PER_S, time.perf_counter())
    return took


@contextmanager
def flooded(port: int, per_second: int) -> Iterator[Counter[str]]:
    """Let the flood go on meanwhile; it ends by itself, and then the counter says what it was answered."""
    told: Counter[str] = Counter()
    command = (sys.executable, "-m", "bench.front_flood", str(port), str(STRETCH_S + 2 * SETTLE_S), str(per_second))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        time.sleep(SETTLE_S)
        yield told
        output, _ = process.communicate(timeout=60)
        told.update(json.loads(output))
        if process.returncode:
            raise RuntimeError("the flood did not run to its end")


def memory_mib(server: Server) -> float:
    """Return what the server's processes have in memory."""
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == server.pid:
            pages += int(fields[21])
    return pages * resource.getpagesize() / 2**20


def measure_flood(report: Report, folder: Path, accounts: Accounts, rounds: int) -> None:
    """Let quiet and flooded stretches take turns."""
    took: dict[str, list[float]] = {"quiet": []}
    ways = {f"{PACE} guesses a second": PACE, "guesses as fast as answers come": 0}
    answers = {way: Counter[str]() for way in ways}
    with served(folder, accounts, max(1, len(usable_cores()) - 1)) as server:
        login = Post.json(
            "/auth/v1/login", email="light0@example.com", password=accounts.passwords["light"], delivery="body"
        )
        token = log_in(server.port, [login], "access_token")[0]["access_token"]
        read(server.port, token, SETTLE_S)
        before = memory_mib(server)
        for _ in range(rounds):
            took["quiet"] += read(server.port, token, STRETCH_S)
            for way, per_second in ways.items():
                with flooded(server.port, per_second) as told:
                    took.setdefault(way, []).extend(read(server.port, token, STRETCH_S))
                answers[way] += told
                time.sleep(2 * SETTLE_S)  # what waits to be hashed is done by then
        after = memory_mib(server)
    for way, times in took.items():
        report.rows.append(Row.of(f"protected GET, {way}: p50", times, "ms"))
        report.rows.append(Row.figure(f"protected GET, {way}: p99", percentile(times), "ms", len(times)))
    for way, told in answers.items():
        seconds = rounds * (STRETCH_S + 2 * SETTLE_S)
        report.rows += [
            Row.figure(f"{way}, from {CONNECTIONS} addresses: answered {status}", count / seconds, "a second")
            for status, count in sorted(told.items())
        ]
    report.rows.append(Row.figure("memory of the server before the floods", before, "MiB"))
    report.rows.append(Row.figure("memory of the server after them", after, "MiB"))
    for way in ways:
        report.targets.append(
            Target(
                f"protected GET, {way}: p99 as against quiet", 2.0, percentile(took[way]) / percentile(took["quiet"])
            )
        )
        report.targets.append(Target(f"protected GET, {way}: p99, ms", 25.0, percentile(took[way])))
    report.targets.append(Target("memory that the floods left behind, MiB", 100.0, after - before))


def percentile(times: list[float]) -> float:
    """Return the 99th."""
    return statistics.quantiles(times, n=100)[98]


def hashes_per_second(workers: int, password_hash: str, password: str, seconds: float) -> float:
    """Verify a hash in so many niced threads, and nothing else."""
    hasher, counts, deadline = PasswordHasher(), [0] * workers, time.perf_counter() + seconds

    def work(number: int) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while time.perf_counter() < deadline:
            hasher.verify(password_hash, password)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def measure_logins(report: Report, folder: Path, accounts: Accounts, workers: int, rounds: int) -> None:
    """Let logins and bare hashes take turns."""
    logins, bare = [], []
    posts = [
        Post.json("/auth/v1/login", email=email, password=accounts.passwords["costly"], delivery="body")
        for email in accounts.emails("costly")
    ]
    with served(folder, accounts, workers) as server:
        work: Work = Logins(posts, "access_token")
        drive(server.port, work, connections=_LINES, seconds=SETTLE_S)
        for _ in range(rounds):
            bare.append(hashes_per_second(workers, accounts.hashes["costly"], accounts.passwords["costly"], LOGINS_S))
            logins.append(drive(server.port, work, connections=_LINES, seconds=LOGINS_S).per_second)
    name = f"{workers} hash worker{'s' if workers > 1 else ''}"
    report.rows.append(Row.of(f"{name}: logins", logins, "a second"))
    report.rows.append(Row.of(f"{name}: the same hashes alone", bare, "a second"))
    ratio = statistics.median(alone / whole for alone, whole in zip(bare, logins, strict=True))
    report.targets.append(Target(f"{name}: hashes alone as against logins", 1 / 0.9, ratio))


def main() -> None:
    """Measure, and print."""
    options = run_options("The front door under a flood of logins.", rounds=6)
    report = Report("front", PACKAGES)
    accounts = Accounts.make(2_000, 1)
    with tempfile.TemporaryDirectory(prefix="jotgate-bench-") as name:
        measure_flood(report, Path(name) / "flood", accounts, options.rounds)
        for workers in sorted({1, len(usable_cores())}):
            measure_logins(report, Path(name) / f"logins{workers}", accounts, workers, options.rounds)
    publish(report, options.json)


if __name__ == "__main__":
    main()
