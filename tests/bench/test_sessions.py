"""What `bench.sessions` promises: each server really does what is measured, wrong answers end the run, figures fit."""

import asyncio
import contextlib
import json
import os
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from argon2 import extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from bench.report import usable_cores
from bench.sessions import Asked, Samples, SessionsReport, measure, summarize
from bench.sessions_install import better_auth_modules, peers_python
from bench.sessions_load import WrongAnswer, drive, parse_answer
from bench.sessions_processes import free_port, postgresql, postgresql_programs, running
from bench.sessions_sides import (
    APIS,
    COSTLY_LOGIN,
    HEALTH,
    JOTGATE,
    JOTGATE_AROUND_ASGI,
    JOTGATE_IN_FASTAPI,
    LOGIN,
    OPEN_READ,
    POSTGRESQL,
    READ,
    REFRESH,
    SQLITE,
    Accounts,
    Logins,
    Post,
    Reads,
    Refreshes,
    Setting,
    Side,
    better_auth,
    fastapi_users,
    jotgate,
    jotgate_api,
    simplejwt,
)
from jotgate.server.passwords import Passwords

ROOT = Path(__file__).parent.parent.parent
COUNT, SESSIONS = 3, 2
BODY = b'{"token":"abc"}'
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)

needs_peers = pytest.mark.skipif(peers_python() is None, reason="`make bench-sessions` has not installed the peers")
needs_node = pytest.mark.skipif(
    better_auth_modules() is None, reason="`make bench-sessions` has not installed Node's part"
)
needs_postgresql = pytest.mark.skipif(postgresql_programs() is None, reason="PostgreSQL is not installed")


@pytest.fixture(scope="module")
def accounts() -> Accounts:
    return Accounts.make(COUNT, SESSIONS)


@pytest.fixture
def setting(tmp_path: Path, accounts: Accounts) -> Setting:
    return Setting(usable_cores(), tmp_path, accounts, None)


@pytest.fixture
def setting_with_postgresql(tmp_path: Path, accounts: Accounts) -> Iterator[Setting]:
    with postgresql(tmp_path, usable_cores()) as port:
        yield Setting(usable_cores(), tmp_path, accounts, port)


def answers_of(side: Side, operation: str) -> int:
    return drive(side.server.port, side.works[operation], connections=2, seconds=0.2).answers


def rows(database: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        count: int = connection.execute(query).fetchone()[0]
        return count


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def ask(side: Side, request: bytes) -> tuple[int, bytes]:
    """What one request gets, whatever it is."""
    seen: list[tuple[int, bytes]] = []

    class Once:
        def ask(self) -> tuple[bytes, None]:
            return request, None

        def judge(self, asked: object, status: int, body: bytes) -> None:
            seen.append((status, body))

    drive(side.server.port, Once(), connections=1, seconds=0.0)
    return seen[0]


# Who asks


@contextlib.contextmanager
def answering(*pieces: bytes) -> Iterator[int]:
    """A server that answers each request with these pieces, one segment each, and ends the connection at b""."""

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                while any(line == b"\r\n" for line in self.rfile):
                    for piece in pieces:
                        if not piece:
                            return
                        self.wfile.write(piece)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def reads(expected: bytes) -> Reads:
    return Reads([(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", expected)])


def test_every_answer_is_counted_once() -> None:
    with answering(GOOD[:9], GOOD[9:30], GOOD[30:]) as port:
        load = drive(port, reads(b"abc"), connections=3, seconds=0.1)
    assert load.answers == len(load.took_s) > 3
    assert load.seconds >= 0.1
    assert load.per_second == load.answers / load.seconds
    assert 0 < min(load.took_s) <= max(load.took_s) <= load.seconds


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((GOOD.replace(b"200", b"503"),), "answered with 503"),
        ((GOOD.replace(b"abc", b"abd"),), "instead of b'abc'"),
        ((GOOD + GOOD,), "more than one answer"),
        ((GOOD[:20], b""), "closed the connection"),
        ((b"",), "closed the connection"),
        ((b"HTTP/1.1 200 OK\r\n\r\nabc",), "where it ends"),
    ],
)
def test_a_wrong_answer_ends_the_run(pieces: tuple[bytes, ...], reason: str) -> None:
    with answering(*pieces) as port, pytest.raises(WrongAnswer, match=reason):
        drive(port, reads(b"abc"), connections=1, seconds=0.5)


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=8))
def test_an_answer_is_read_whole_however_it_is_framed(body: bytes, sizes: list[int]) -> None:
    plain = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    chunks, rest = b"", body
    for size in [*sizes, len(body)]:
        if rest:
            chunks += b"%x\r\n%s\r\n" % (len(rest[:size]), rest[:size])
            rest = rest[size:]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    for raw in (plain, chunked):
        assert parse_answer(raw) == (200, body)
        assert parse_answer(raw[:-1]) is None


def test_a_refresh_uses_up_the_token_that_the_answer_before_gave() -> None:
    work = Refreshes("/refresh", "refresh_token", [b"one", b"two"])
    (first, token), (_, other) = work.ask(), work.ask()
    assert (token, other) == (b"one", b"two")
    assert first.endswith(b'{"refresh_token": "one"}')
    work.judge(token, 200, b'{"refresh_token":"three","access_token":"x"}')
    assert work.ask()[1] == b"three"
    for status, body in ((401, b'{"refresh_token":"four"}'), (200, b"{}"), (200, b'{"refresh_token":"two"}')):
        with pytest.raises(WrongAnswer):
            work.judge(other, status, body)


def test_a_login_without_a_token_is_none() -> None:
    work = Logins([Post.json("/login", email="a")], "token")
    work.judge(None, 200, b'{"token":"abc"}')
    for status, body in ((401, b'{"token":"abc"}'), (200, b'{"token":""}'), (200, b'{"token":null}'), (200, b"{}")):
        with pytest.raises(WrongAnswer):
            work.judge(None, status, body)


# Who is asked


def test_a_server_that_leaves_a_worker_behind_leaves_none(tmp_path: Path) -> None:
    port = free_port()
    program = """
import http.server, os, signal, sys
if os.fork():
    signal.pause()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
    command = (sys.executable, "-c", program, str(port))
    with running(command, port=port, folder=tmp_path, environment=os.environ, cores=usable_cores()) as server:
        assert server.core_seconds() > 0
    deadline = time.monotonic() + 10  # the kernel ends it in its own time
    while listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_costly_hash_is_the_one_that_jotgate_makes(accounts: Accounts) -> None:
    passwords = Passwords(1)
    try:
        own = asyncio.run(passwords.hash(accounts.passwords["costly"]))
    finally:
        passwords.close()
    assert extract_parameters(accounts.hashes["costly"]) == extract_parameters(own)
    assert extract_parameters(accounts.hashes["light"]).memory_cost == 8
    assert len(accounts.rows) == 2 * COUNT


def test_jotgate_rotates_and_begins_sessions_durably(setting: Setting) -> None:
    database = setting.folder / f"jotgate-{SQLITE}" / "data" / "jotgate.sqlite3"
    with jotgate(setting, SQLITE) as [side]:
        before = rows(database, "SELECT count(*) FROM jotgate_families")
        assert answers_of(side, REFRESH) == rows(database, "SELECT sum(generation) FROM jotgate_families")
        logins = answers_of(side, LOGIN) + answers_of(side, COSTLY_LOGIN)
        assert rows(database, "SELECT count(*) FROM jotgate_families") - before == logins
        wrong = Post.json("/v1/login", email="light0@example.com", password="not the password", delivery="body")
        assert ask(side, wrong.raw)[0] == 401
        assert answers_of(side, HEALTH) > 0
        assert side.server.core_seconds() > 0


@needs_postgresql
def test_jotgate_does_the_same_on_postgresql(setting_with_postgresql: Setting) -> None:
    with jotgate(setting_with_postgresql, POSTGRESQL) as [side]:
        refresh = side.works[REFRESH]
        used, token = refresh.ask()
        refresh.judge(token, *ask(side, used))
        assert all(answers_of(side, operation) > 0 for operation in side.works)
        assert not list((setting_with_postgresql.folder / f"jotgate-{POSTGRESQL}").rglob("*.sqlite3"))


@pytest.mark.parametrize("name", APIS)
def test_the_protected_route_is_protected_and_the_open_one_is_open(setting: Setting, name: str) -> None:
    with jotgate_api(setting, name) as [side]:
        assert answers_of(side, READ) > 0
        assert answers_of(side, OPEN_READ) > 0
        assert ask(side, b"GET /me HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")[0] == 401
        assert ask(side, b"GET /open/last HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") == (200, b'{"sub":"anybody"}')


@pytest.mark.soak  # the servers come with the benchmark, not with the tests
@needs_peers
def test_fastapi_users_writes_a_session_with_the_database_strategy_alone(setting: Setting) -> None:
    database = setting.folder / f"fastapi-users-{SQLITE}" / "users.sqlite3"
    with fastapi_users(setting, SQLITE) as [by_jwt, by_database]:
        before = rows(database, "SELECT count(*) FROM accesstoken")
        assert before == SESSIONS
        for side, path in ((by_jwt, "/jwt"), (by_database, "/db")):
            logins = answers_of(side, LOGIN) + answers_of(side, COSTLY_LOGIN)
            written = rows(database, "SELECT count(*) FROM accesstoken") - before
            assert written == (logins if side is by_database else 0)
            assert answers_of(side, READ) > 0
            assert ask(side, f"GET {path}/me HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())[0] == 401
            form = b"username=light0%40example.com&password=wrong"
            assert ask(side, Post(f"{path}/login", form, "application/x-www-form-urlencoded").raw)[0] == 400


@pytest.mark.soak
@needs_peers
def test_simplejwt_rotates_and_blacklists(setting: Setting) -> None:
    database = setting.folder / f"simplejwt-{SQLITE}" / "django.sqlite3"
    with simplejwt(setting, SQLITE) as [side]:
        refresh = side.works[REFRESH]
        used, token = refresh.ask()
        assert isinstance(token, bytes)
        status, body = ask(side, used)
        refresh.judge(token, status, body)
        assert ask(side, used)[0] == 401
        refreshes = answers_of(side, REFRESH)
        assert rows(database, "SELECT count(*) FROM token_blacklist_blacklistedtoken") == refreshes + 1
        logins = answers_of(side, LOGIN) + answers_of(side, COSTLY_LOGIN)
        written = rows(database, "SELECT count(*) FROM token_blacklist_outstandingtoken")
        assert written == SESSIONS + refreshes + 1 + logins
        assert answers_of(side, READ) > 0
        assert ask(side, b"GET /me/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")[0] == 401
        assert ask(side, Post.json("/token/", username="light0@example.com", password="wrong").raw)[0] == 401


@pytest.mark.soak
@needs_node
@needs_postgresql
def test_better_auth_knows_sessions_by_their_cookie_alone(setting_with_postgresql: Setting) -> None:
    with better_auth(setting_with_postgresql) as [side]:
        for operation in (LOGIN, COSTLY_LOGIN, READ):
            assert answers_of(side, operation) > 0
        assert ask(side, b"GET /api/auth/get-session HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") == (200, b"null")
        wrong = Post.json("/api/auth/sign-in/email", email="light0@example.com", password="not the password")
        assert ask(side, wrong.raw)[0] == 401


@pytest.mark.soak
@needs_peers
@needs_postgresql
@pytest.mark.parametrize("start", [fastapi_users, simplejwt])
def test_peers_do_the_same_on_postgresql(
    setting_with_postgresql: Setting, start: Callable[[Setting, str], AbstractContextManager[list[Side]]]
) -> None:
    with start(setting_with_postgresql, POSTGRESQL) as sides:
        for side in sides:
            assert side.database == POSTGRESQL
            assert all(answers_of(side, operation) > 0 for operation in side.works)


# The figures


def sample(samples: Samples, operation: str, database: str, side: str, rate: float) -> None:
    samples.add(Asked(operation, database, side), rate, 1.0, 0.25)


def test_targets_compare_what_was_measured_in_the_same_round() -> None:
    samples = Samples()
    for step in (1.0, 1.5, 2.0):  # the machine's speed; the ratios stay
        sample(samples, REFRESH, SQLITE, JOTGATE, 2000 * step)
        sample(samples, REFRESH, SQLITE, "Django SimpleJWT", 200 * step)
        sample(samples, LOGIN, SQLITE, JOTGATE, 1500 * step)
        sample(samples, LOGIN, SQLITE, "fastapi-users, JWT strategy", 600 * step)
        sample(samples, LOGIN, SQLITE, "Django SimpleJWT", 300 * step)
        sample(samples, COSTLY_LOGIN, SQLITE, JOTGATE, 40 * step)
        for name, kept in ((JOTGATE_IN_FASTAPI, 4000), (JOTGATE_AROUND_ASGI, 19000)):
            sample(samples, READ, SQLITE, name, kept * step)
            sample(samples, OPEN_READ, SQLITE, name, {4000: 5000, 19000: 20000}[kept] * step)
        sample(samples, READ, SQLITE, "Django SimpleJWT", 900 * step)
        sample(samples, READ, POSTGRESQL, "better-auth", 1000 * step)
        sample(samples, HEALTH, SQLITE, JOTGATE, 10000 * step)
        samples.hash_ms.append(25 / step)
    report = SessionsReport("sessions", ())
    summarize(report, samples)
    targets = [(round(target.goal, 3), round(target.measured, 3), target.met) for target in report.targets]
    assert targets == [
        (0.333, 0.3, True),  # a refresh: fastapi-users has a new login in its place
        (0.333, 0.4, False),  # a login
        (0.333, 0.25, True),  # a protected GET, wherever the fastest peer keeps its sessions
        (1.1, 1.25, False),
        (1.1, round(20 / 19, 3), True),
    ]
    values = {row.name: row.value for row in report.rows}
    assert values["refresh, SQLite: jotgate"] == 3000
    assert values["refresh, SQLite: rate of Django SimpleJWT as against jotgate"] == pytest.approx(0.1)
    assert values["one Argon2id verification, alone"] == pytest.approx(25 / 1.5)
    assert values["what the asking process could take of healthz, SQLite: jotgate"] == 60000
    assert report.cores[Asked(REFRESH, SQLITE, JOTGATE)] == (1.0, 0.25)


@pytest.mark.soak
def test_a_round_measures_what_is_installed_and_says_what_is_not(tmp_path: Path) -> None:
    report = SessionsReport("sessions", ("jotgate",))
    measure(report, 1, tmp_path)
    rates = {row.name: row.value for row in report.rows}
    for operation in (REFRESH, LOGIN, COSTLY_LOGIN, HEALTH):
        assert rates[f"{operation}, SQLite: jotgate"] > 0
    for name in APIS:
        assert rates[f"{READ}, SQLite: {name}"] > 0
    if peers_python() is None:
        assert report.absent["Django SimpleJWT, SQLite"] == "not installed"
    else:
        assert rates["refresh, SQLite: Django SimpleJWT"] > 0


@pytest.mark.soak
def test_the_whole_benchmark_runs_and_writes_its_figures(tmp_path: Path) -> None:
    written = tmp_path / "sessions.json"
    command = (sys.executable, "-m", "bench.sessions", "--rounds", "1", "--json", str(written))
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert list(figures) == ["benchmark", "at", "machine", "versions", "rows", "targets"]
    assert {"jotgate", "fastapi-users", "django"} <= set(figures["versions"])
    assert any(row["name"] == "refresh, SQLite: Django SimpleJWT" for row in figures["rows"])
