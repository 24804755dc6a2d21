"""Logins, refreshes and protected GETs a second, beside fastapi-users, Django with SimpleJWT, and better-auth.

``python -m bench.sessions [--rounds N] [--json FILE]``. All servers are real processes with one worker, under plain
HTTP on the loopback address, with durable commits. They have one core together and are asked one after the other;
whoever asks them has the other core, with PostgreSQL. In each round every server is asked for everything, in a new
order, and ratios are of the same round. Every answer is judged: one that is wrong ends the run.

A login is measured twice: with Argon2id at jotgate's own parameters, and with accounts whose hash costs microseconds,
which shows everything else that a login takes.
"""

import datetime as dt
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from argon2 import PasswordHasher

from bench import sessions_install
from bench.report import Report, Row, Target, pinned, publish, run_options, usable_cores
from bench.sessions_load import drive
from bench.sessions_processes import postgresql, postgresql_programs
from bench.sessions_sides import (
    APIS,
    COSTLY_LOGIN,
    HEALTH,
    JOTGATE,
    JOTGATE_IN_FASTAPI,
    LOGIN,
    OPEN_READ,
    POSTGRESQL,
    READ,
    REFRESH,
    SQLITE,
    Accounts,
    Setting,
    Side,
    make_sides,
)

PACKAGES = ("jotgate", "granian", "argon2-cffi", "cryptography", "fastapi", "msgspec", "sqlalchemy")
PEER_SHARE_OF_JOTGATE = 1 / 3
PROTECTED_OVER_OPEN = 1.10

OPERATIONS = (REFRESH, LOGIN, COSTLY_LOGIN, READ, OPEN_READ, HEALTH)
CONNECTIONS = 32
# Enough that in one run no account gathers more sessions than a person's.
ACCOUNTS, SESSIONS = 1000, 64
SECONDS = 0.5
# A hash takes 20 to 30 ms of the core: more at once would only wait, and in fewer seconds there would be too few.
COSTLY_CONNECTIONS, COSTLY_SECONDS = 4, 0.6
_WARM_UP_ROUNDS = 1
_HASHES = 5
# The small difference between an open and a protected GET is taken of slices that follow each other closely.
_SLICES, _SLICE_SECONDS = 4, 0.25
_CORES = usable_cores()
_SERVERS, _ASKING = _CORES[-1:], _CORES[:1]


class Asked(NamedTuple):
    """What was asked of whom."""

    operation: str
    database: str
    side: str

    def __str__(self) -> str:
        return f"{self.operation}, {self.database}: {self.side}"


@dataclass(slots=True)
class Samples:
    """One figure for each round."""

    rates: dict[Asked, list[float]] = field(default_factory=dict)
    """Answers per second."""
    server_core: dict[Asked, list[float]] = field(default_factory=dict)
    """Which share of their core the server's processes used meanwhile."""
    asking_core: dict[Asked, list[float]] = field(default_factory=dict)
    """Which share of its core this process used meanwhile."""
    hash_ms: list[float] = field(default_factory=list)
    """One Argon2id verification, alone on the servers' core."""

    def add(self, asked: Asked, rate: float, server_core: float, asking_core: float) -> None:
        """Note what one server did in one round."""
        for figures, figure in (
            (self.rates, rate),
            (self.server_core, server_core),
            (self.asking_core, asking_core),
        ):
            figures.setdefault(asked, []).append(figure)

    def clear(self) -> None:
        """Forget the rounds so far."""
        for each in (self.rates, self.server_core, self.asking_core):
            each.clear()
        self.hash_ms.clear()


@dataclass(slots=True)
class SessionsReport(Report):
    """A report that also knows the versions of what lies in other environments, and who used how much of the cores."""

    others: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """Why a side takes no part."""
    cores: dict[Asked, tuple[float, float]] = field(default_factory=dict)
    """The shares of a core that the server and the asking process used."""

    def notes(self) -> list[str]:
        """Return what a reader must know to judge the rows."""
        return [
            *(f"{name} takes no part: {reason}" for name, reason in self.absent.items()),
            *(
                f"{asked}: the server used {100 * server:.0f} % of its core, the asking process {100 * asking:.0f} %"
                for asked, (server, asking) in self.cores.items()
            ),
        ]

    def to_dict(self, now: dt.datetime) -> dict[str, Any]:
        """Return the JSON shape that every benchmark has."""
        written = Report.to_dict(self, now)
        written["versions"] |= self.others
        return written


def run_round(samples: Samples, sides: Sequence[Side], accounts: Accounts, chance: random.Random) -> None:
    """Ask every side for everything once; those that are compared with each other come one after the other."""
    for operation in OPERATIONS:
        taking_part = [side for side in sides if operation in side.works]
        for side in sorted(chance.sample(taking_part, len(taking_part)), key=lambda each: each.database):
            if OPEN_READ not in side.works:
                _ask(samples, side, operation)
            elif operation == READ:
                _ask_by_slices(samples, side, chance)
    with pinned(_SERVERS):
        verify, hashed, password = PasswordHasher().verify, accounts.hashes["costly"], accounts.passwords["costly"]
        began = time.perf_counter()
        for _ in range(_HASHES):
            verify(hashed, password)
        samples.hash_ms.append((time.perf_counter() - began) / _HASHES * 1000)


def _ask(samples: Samples, side: Side, operation: str) -> None:
    costly = operation == COSTLY_LOGIN
    asked = Asked(operation, side.database, side.name)
    used, asking = side.server.core_seconds(), time.process_time()
    load = drive(
        side.server.port,
        side.works[operation],
        connections=COSTLY_CONNECTIONS if costly else CONNECTIONS,
        seconds=COSTLY_SECONDS if costly else SECONDS,
    )
    asking = time.process_time() - asking
    used = side.server.core_seconds() - used
    samples.add(asked, load.per_second, used / load.seconds, asking / load.seconds)


def _ask_by_slices(samples: Samples, side: Side, chance: random.Random) -> None:
    """Ask for the open and for the protected route of one server by turns."""
    answers, seconds, used, asking = ({READ: 0.0, OPEN_READ: 0.0} for _ in range(4))
    for _ in range(_SLICES):
        for operation in chance.sample((READ, OPEN_READ), 2):
            core_before, own_before = side.server.core_seconds(), time.process_time()
            load = drive(side.server.port, side.works[operation], connections=CONNECTIONS, seconds=_SLICE_SECONDS)
            answers[operation] += load.answers
            seconds[operation] += load.seconds
            asking[operation] += time.process_time() - own_before
            used[operation] += side.server.core_seconds() - core_before
    for operation, lasted in seconds.items():
        asked = Asked(operation, side.database, side.name)
        samples.add(asked, answers[operation] / lasted, used[operation] / lasted, asking[operation] / lasted)


def summarize(report: SessionsReport, samples: Samples) -> None:
    """Turn samples into rows and targets."""
    rates = samples.rates
    position = {operation: number for number, operation in enumerate(OPERATIONS)}
    order = sorted(rates, key=lambda each: (position[each.operation], each.database, -statistics.median(rates[each])))
    report.rows += [Row.of(str(asked), rates[asked], "per s") for asked in order]
    report.rows.append(Row.of("one Argon2id verification, alone", samples.hash_ms, "ms"))
    for asked, shares in samples.asking_core.items():
        if asked.operation == HEALTH:
            could = [rate / share for rate, share in zip(rates[asked], shares, strict=True)]
            report.rows.append(Row.of(f"what the asking process could take of {asked}", could, "per s"))
    for database in (SQLITE, POSTGRESQL):
        _compare(report, rates, Asked(REFRESH, database, JOTGATE), _in_place_of_refresh(rates, database))
        logins = [each for each in rates if each.operation == LOGIN and each.database == database]
        _compare(report, rates, Asked(LOGIN, database, JOTGATE), logins)
    reads = [each for each in rates if each.operation == READ]
    _compare(report, rates, Asked(READ, SQLITE, JOTGATE_IN_FASTAPI), reads)
    for side in APIS:
        shut, open_to_all = Asked(READ, SQLITE, side), Asked(OPEN_READ, SQLITE, side)
        if shut in rates:
            name = f"{side}: time of a protected GET as against an open one"
            ratios = [free / kept for free, kept in zip(rates[open_to_all], rates[shut], strict=True)]
            report.rows.append(Row.of(name, ratios, "times"))
            report.targets.append(Target(f"{name}, times", PROTECTED_OVER_OPEN, statistics.median(ratios)))
    report.cores |= {
        asked: (statistics.median(samples.server_core[asked]), statistics.median(samples.asking_core[asked]))
        for asked in order
    }


def _in_place_of_refresh(rates: Mapping[Asked, list[float]], database: str) -> list[Asked]:
    """What gives a new token at each peer: SimpleJWT's rotation, elsewhere a new login."""
    return [
        each
        for each in rates
        if each.database == database
        and each.operation == (REFRESH if each.side == "Django SimpleJWT" else LOGIN)
        and each.side != JOTGATE
    ]


def _compare(report: SessionsReport, rates: Mapping[Asked, list[float]], ours: Asked, theirs: Sequence[Asked]) -> None:
    """Set each peer's rate in relation to ours; the target counts for the greatest."""
    if ours not in rates:
        return
    shares: dict[str, float] = {}
    for their in theirs:
        if their.side.startswith(JOTGATE):
            continue
        ratios = [one / another for one, another in zip(rates[their], rates[ours], strict=True)]
        what = their.operation if their.operation != ours.operation else ""
        whose = " ".join(part for part in (their.side, what) if part)
        name = f"{ours.operation}, {ours.database}: rate of {whose} as against jotgate"
        if their.database != ours.database:
            name = f"{ours.operation}: rate of {whose} on {their.database} as against {ours.side}"
        report.rows.append(Row.of(name, ratios, "times"))
        shares[f"{name}, times"] = statistics.median(ratios)
    if shares:
        fastest = max(shares, key=lambda name: shares[name])
        report.targets.append(Target(fastest, PEER_SHARE_OF_JOTGATE, shares[fastest]))


def measure(report: SessionsReport, rounds: int, folder: Path, *, seed: int = 2026) -> None:
    """Start everything, run all rounds and fill the report."""
    chance = random.Random(seed)  # noqa: S311 # an order, no secret
    accounts = Accounts.make(ACCOUNTS, SESSIONS)
    with ExitStack() as stack:
        port = None
        if postgresql_programs() is not None:
            port = stack.enter_context(postgresql(folder, _ASKING))
        sides, absent = make_sides(Setting(_SERVERS, folder, accounts, port), stack)
        report.absent |= absent
        samples = Samples()
        for number in range(_WARM_UP_ROUNDS + rounds):
            if number == _WARM_UP_ROUNDS:
                samples.clear()
            run_round(samples, sides, accounts, chance)
    summarize(report, samples)


def main() -> None:
    """Measure, and print."""
    options = run_options("Logins, refreshes and protected GETs a second, beside other servers.", rounds=9)
    sessions_install.install_peers()
    report = SessionsReport("sessions", PACKAGES, others=sessions_install.versions())
    with pinned(_ASKING), tempfile.TemporaryDirectory(prefix="jotgate-bench-") as folder:
        measure(report, options.rounds, Path(folder))
    publish(report, options.json)
    print("", *report.notes(), sep="\n")


if __name__ == "__main__":
    main()
