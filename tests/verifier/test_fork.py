"""A verifier that was used before its process forked, as pre-fork servers do; with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jotgate import generate_key
from tests.verifier.feed_server import SNAPSHOT, STREAM, FakeFeed, wait_until
from tests.verifier.servers import WITHIN_S, FakeIssuer

PRELUDE = """
import os, sys, threading
from jotgate import KeySourceError, Verifier
issuer, ca_file, token = sys.argv[1:]
verifier = Verifier(issuer=issuer, audience="api", ca_file=ca_file, key_wait_s=30, timeout_s=30)

def say(text):
    print(text, flush=True)

def end_child(check):
    status = 1
    try:
        check()
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)

def wait_child(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""

AFTER_USE = """
say(verifier.verify(token).subject)
successor = sys.stdin.readline().strip()
def check():
    say(verifier.verify(token).subject)  # the parent's keys came along
    say(verifier.verify(successor).subject)  # and a thread of the child's own fetches newer ones
pid = os.fork()
if pid == 0:
    end_child(check)
wait_child(pid)
say(verifier.verify(successor).subject)
"""

LOCKED = """
say(verifier.verify(token).subject)
held, done = threading.Event(), threading.Event()
def hold():
    with verifier._remote._changed:
        held.set()
        done.wait()
threading.Thread(target=hold).start()
held.wait()
successor = sys.stdin.readline().strip()
pid = os.fork()
if pid == 0:
    end_child(lambda: say(verifier.verify(successor).subject))
wait_child(pid)
done.set()
"""

IN_FLIGHT = """
impatient = Verifier(issuer=issuer, audience="api", ca_file=ca_file, key_wait_s=0, timeout_s=30)
try:
    impatient.verify(token)
except KeySourceError:
    say("asked")
sys.stdin.readline()
def check():
    impatient.wait_ready(30)
    say(impatient.verify(token).subject)
pid = os.fork()
if pid == 0:
    end_child(check)
wait_child(pid)
"""

FOLLOWING = """
import time
from jotgate import TokenRevoked

def wait(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.01)

def refused():
    try:
        verifier.verify(token)
    except TokenRevoked:
        return True
    return False

verifier.verify(token)
wait(lambda: verifier.status().feed.mode == "stream")
pid = os.fork()
if pid == 0:
    def check():
        say(verifier.verify(token).subject)
        wait(refused)
        say("child")
    end_child(check)
wait_child(pid)
wait(refused)
say("parent")
"""

LEFT_BEHIND = """
import time
verifier.verify(token)
while verifier.status().feed.mode != "stream":
    time.sleep(0.01)
if os.fork() == 0:
    say("forked")
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
"""

ENDS = """
impatient = Verifier(issuer=issuer, audience="api", ca_file=ca_file, key_wait_s=0, timeout_s=30)
try:
    impatient.verify(token)
except KeySourceError:
    say("asked")
sys.stdin.readline()
"""


class Script:
    """A Python process that talks to the test line by line."""

    def __init__(self, body: str, issuer: FakeIssuer, folder: Path) -> None:
        file = folder / "script.py"
        file.write_text(PRELUDE + body)
        arguments = (issuer.issuer, str(issuer.server.certificates.ca), issuer.token())
        self.process = subprocess.Popen(
            [sys.executable, str(file), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def finish(self, given: str = "") -> list[str]:
        out, _ = self.process.communicate(given + "\n", timeout=WITHIN_S * 2)
        assert self.process.returncode == 0
        return out.split()

    def end(self) -> None:
        """Leave nobody behind, the children included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def run(issuer: FakeIssuer, tmp_path: Path) -> Iterator[Callable[[str], Script]]:
    """`run(BODY)` starts a script for the issuer."""
    started: list[Script] = []

    def begin(body: str) -> Script:
        started.append(Script(body, issuer, tmp_path))
        return started[-1]

    yield begin
    for script in started:
        script.end()


def test_a_child_uses_its_parents_keys_and_fetches_newer_ones_itself(
    issuer: FakeIssuer, run: Callable[[str], Script]
) -> None:
    script = run(AFTER_USE)
    assert script.line() == "alice"
    old, issuer.key = issuer.key, generate_key("ES256")
    issuer.publish(issuer.key, old)
    assert script.finish(issuer.token()) == ["alice"] * 3


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_held(
    issuer: FakeIssuer, run: Callable[[str], Script]
) -> None:
    script = run(LOCKED)
    assert script.line() == "alice"
    old, issuer.key = issuer.key, generate_key("ES256")
    issuer.publish(issuer.key, old)
    assert script.finish(issuer.token()) == ["alice"]


def test_a_child_does_not_wait_for_a_fetch_that_is_its_parents(
    issuer: FakeIssuer, run: Callable[[str], Script]
) -> None:
    serve = issuer.server.answers["/jwks.json"]
    first = threading.Lock()

    def hold_the_first(connection: ssl.SSLSocket) -> None:
        if first.acquire(blocking=False):
            issuer.server.stopping.wait(WITHIN_S)
        serve(connection)

    issuer.server.answers["/jwks.json"] = hold_the_first
    script = run(IN_FLIGHT)
    assert script.line() == "asked"
    issuer.server.wait_requests(1, "/jwks.json")
    assert script.finish() == ["alice"]


def test_parent_and_child_both_go_on_hearing_of_revocations(feed: FakeFeed, run: Callable[[str], Script]) -> None:
    script = run(FOLLOWING)
    assert script.line() == "alice"  # the child's
    wait_until(lambda: len(feed.positions) == 2)  # a stream of its own, from where its parent was
    assert feed.positions == ["log.0"] * 2
    feed.revoke(kind="all")
    assert script.finish() == ["child", "parent"]
    assert feed.issuer.server.requests.count(SNAPSHOT) == 1


def test_a_child_does_not_hold_its_parents_connection_open(feed: FakeFeed, run: Callable[[str], Script]) -> None:
    ended = threading.Event()

    def stream(connection: ssl.SSLSocket) -> None:
        try:
            feed.stream(connection)
        finally:
            ended.set()

    feed.issuer.server.answers[STREAM] = stream
    script = run(LEFT_BEHIND)
    assert script.line() == "forked"
    assert not ended.is_set()
    script.process.kill()  # the parent alone
    assert ended.wait(WITHIN_S)


def test_a_process_ends_although_its_thread_is_fetching(issuer: FakeIssuer, run: Callable[[str], Script]) -> None:
    def never(connection: ssl.SSLSocket) -> None:
        del connection
        issuer.server.stopping.wait(WITHIN_S)

    issuer.server.answers["/jwks.json"] = never
    script = run(ENDS)
    assert script.line() == "asked"
    issuer.server.wait_requests(1, "/jwks.json")
    assert script.finish() == []
    assert not issuer.server.stopping.is_set()
