"""An issuer that is down or answers badly for long: the known keys decide on, and every cause is told."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from jotgate import Issuer, Key, KeySourceError, UnknownKey, Verifier, generate_key
from jotgate.verifier.attempt import Attempt
from tests.verifier.feed_server import wait_until
from tests.verifier.servers import WITHIN_S, FakeIssuer, http_answer

Start = Callable[..., Verifier]
MINUTE_S = 60


@dataclass
class Time:
    """Both clocks of a verifier. Time passes between two of its fetches only, so that none is cut off by it."""

    ahead_s: float = 0.0
    due_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def wall(self) -> int:
        return int(time.time() + self.ahead_s)

    def jitter(self) -> float:
        """A verifier asks for it once after each fetch."""
        with self.lock:
            self.ahead_s += self.due_s
            self.due_s = 0.0
        return 0.0

    def pass_by(self, seconds: float) -> None:
        with self.lock:
            self.due_s = seconds
        wait_until(lambda: not self.due_s)


@dataclass
class Scene:
    """One verifier of one issuer, fetching again and again while its clocks are moved."""

    issuer: FakeIssuer
    verifier: Verifier
    time: Time
    name: str
    port: int

    def token(self, key: Key | None = None) -> str:
        signer = Issuer(issuer=self.name, keys=key or self.issuer.key, clock=self.time.wall)
        return signer.issue("alice", audience="api")

    def verify(self, key: Key | None = None) -> str:
        return self.verifier.verify(self.token(key)).subject

    def fetches(self) -> int:
        return self.issuer.server.requests.count("/jwks.json")

    def wait_fetched(self) -> None:
        """Wait until what is published now has been fetched and taken in."""
        seen = self.fetches()
        self.issuer.server.wait_requests(seen + 3, "/jwks.json")


@pytest.fixture(params=["metadata", "jwks_uri"])
def scene(request: pytest.FixtureRequest, issuer: FakeIssuer, start: Start) -> Scene:
    clocks = Time()
    verifier = start(
        **({"jwks_uri": issuer.server.url + issuer.jwks_path} if request.param == "jwks_uri" else {}),
        refresh_s=0.05,
        timeout_s=1,
        max_key_age_offline_s=60 * MINUTE_S,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
        jitter=clocks.jitter,
    )
    return Scene(issuer, verifier, clocks, issuer.issuer, issuer.server.port)


def nobody_listens(scene: Scene) -> None:
    scene.issuer.server.listener.shutdown(socket.SHUT_RDWR)
    scene.issuer.server.listener.close()


def slow_drip(scene: Scene) -> None:
    def answer(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        while not scene.issuer.server.stopping.wait(0.01):
            connection.sendall(b" ")

    scene.issuer.server.answers["/jwks.json"] = answer


def answering(body: bytes | object, **options: object) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.issuer.server.answers["/jwks.json"] = http_answer(body, **options)  # type: ignore[arg-type]

    return change


def mend(scene: Scene) -> None:
    """The issuer is back, at the same address."""
    server = scene.issuer.server
    if server.listener.fileno() < 0:
        server.listener = socket.create_server(("127.0.0.1", scene.port))
        threading.Thread(target=server.serve, daemon=True).start()
    scene.issuer.publish()


CAUSES = {
    "nobody listens": (nobody_listens, "no connection"),
    "500": (answering({}, status="500 Internal Server Error"), "status 500"),
    "html": (answering(b"<!doctype html><title>Down</title>"), "not the JSON object"),
    "empty set": (answering({"keys": []}), "no usable key"),
    "slow drip": (slow_drip, "no complete answer within"),
    "redirect": (answering({}, status="302 Found", headers=("Location: /elsewhere",)), "are not followed"),
    "oversized": (answering(b" " * (256 * 1024 + 1)), "larger than 256 KiB"),
}


@pytest.mark.parametrize(("break_it", "said"), CAUSES.values(), ids=CAUSES)
def test_an_issuer_that_is_down_for_50_minutes_is_noticed_by_nobody_but_the_operator(
    scene: Scene, caplog: pytest.LogCaptureFixture, break_it: Callable[[Scene], None], said: str
) -> None:
    caplog.set_level(logging.WARNING, "jotgate.verifier")
    assert scene.verify() == "alice"
    verifier = scene.verifier
    break_it(scene)
    wait_until(lambda: said in (verifier.status().last_error or ""))
    for _ in range(5):
        scene.time.pass_by(10 * MINUTE_S)
        assert scene.verify() == "alice"
        status = verifier.status()
        assert status.ready
        assert said in (status.last_error or "")
    scene.time.pass_by(10 * MINUTE_S)
    with pytest.raises(KeySourceError, match="too long ago") as refused:
        scene.verify()
    assert said in str(refused.value)
    assert [said in record.getMessage() for record in caplog.records].count(True) == 1
    mend(scene)
    wait_until(lambda: verifier.status().ready)
    assert scene.verify() == "alice"
    assert verifier.status().last_error is None


def spoiled(key: Key) -> dict[str, str]:
    return {**key.public.to_jwk(), "x": "AA"}


def publish(scene: Scene, *entries: dict[str, str]) -> None:
    scene.issuer.server.answers["/jwks.json"] = http_answer({"keys": list(entries)})
    scene.wait_fetched()


def test_a_set_with_a_broken_key_brings_the_others(scene: Scene) -> None:
    scene.verify()
    added, broken = generate_key("ES256"), generate_key("ES256")
    publish(scene, scene.issuer.key.public.to_jwk(), added.public.to_jwk(), spoiled(broken))
    status = scene.verifier.status()
    assert (scene.verify(), scene.verify(added), status.last_error) == ("alice", "alice", None)
    assert [name for name, _ in status.skipped] == [broken.kid]
    assert broken.kid not in status.keys


def test_a_known_key_whose_entry_is_spoiled_stays_as_long_as_in_an_outage_and_no_longer(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "jotgate.verifier")
    other, key = generate_key("ES256"), scene.issuer.key
    scene.issuer.publish(key, other)
    scene.verify()
    publish(scene, spoiled(key), other.public.to_jwk())
    for _ in range(5):
        scene.time.pass_by(10 * MINUTE_S)
        scene.wait_fetched()
        assert (scene.verify(key), scene.verify(other)) == ("alice", "alice")
        status = scene.verifier.status()
        assert ([name for name, _ in status.skipped], status.last_error) == ([key.kid], None)
    assert ["cannot be used" in record.getMessage() for record in caplog.records].count(True) == 1
    scene.time.pass_by(10 * MINUTE_S)
    scene.wait_fetched()
    with pytest.raises(UnknownKey):
        scene.verify(key)
    assert scene.verify(other) == "alice"
    publish(scene, key.public.to_jwk(), other.public.to_jwk())
    assert (scene.verify(key), scene.verifier.status().skipped) == ("alice", ())


def test_a_key_that_the_issuer_drops_is_dropped_with_the_tokens_it_proved(scene: Scene) -> None:
    other, key = generate_key("ES256"), scene.issuer.key
    scene.issuer.publish(key, other)
    remembered = scene.token()
    for _ in range(2):
        scene.verifier.verify(remembered)
    publish(scene, other.public.to_jwk())
    with pytest.raises(UnknownKey):
        scene.verifier.verify(remembered)
    assert scene.verify(other) == "alice"
    assert scene.verifier.status().keys == (other.kid,)


def hold(issuer: FakeIssuer, held: threading.Event) -> None:
    """Let the key set be answered once `held` is set, as it was before."""
    answer = issuer.server.answers["/jwks.json"]

    def later(connection: ssl.SSLSocket) -> None:
        held.wait(WITHIN_S)
        answer(connection)

    issuer.server.answers["/jwks.json"] = later


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_slow_fetch_holds_up_unknown_keys_for_key_wait_s_in_all_and_not_each_of_them(
    issuer: FakeIssuer, start: Start, *, asynchronous: bool
) -> None:
    ahead_s = [0.0]
    verifier = start(key_wait_s=10, timeout_s=3 * WITHIN_S, monotonic=lambda: time.monotonic() + ahead_s[0])
    await asyncio.to_thread(verifier.verify, issuer.token())
    held = threading.Event()
    hold(issuer, held)
    stranger = issuer.token(generate_key("ES256"))

    async def present() -> None:
        with pytest.raises(UnknownKey):
            await (verifier.averify(stranger) if asynchronous else asyncio.to_thread(verifier.verify, stranger))

    first = asyncio.create_task(present())
    await asyncio.to_thread(issuer.server.wait_requests, 2, "/jwks.json")
    ahead_s[0] += 11
    began = time.monotonic()
    for _ in range(20):  # the fetch has been under way for longer than any of them may wait
        await present()
        assert time.monotonic() - began < 5
    assert not first.done()
    held.set()
    await first
    assert issuer.server.requests.count("/jwks.json") == 2


async def test_whoever_gives_up_waiting_leaves_nothing_behind() -> None:
    attempt = Attempt()
    for _ in range(20):
        await attempt.wait_async(0)
    cancelled = asyncio.create_task(attempt.wait_async(WITHIN_S))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert attempt.waiting == 0
    waits = asyncio.create_task(attempt.wait_async(WITHIN_S))
    await asyncio.sleep(0)
    assert attempt.waiting == 1
    attempt.end()
    await waits


@pytest.mark.parametrize(("max_age_s", "after_s"), [(1, 54), (120, 108), (86_400, 270)])
def test_an_added_key_is_known_by_the_announced_time_before_any_token_names_it(
    issuer: FakeIssuer, start: Start, max_age_s: int, after_s: int
) -> None:
    """Up to a tenth sooner, so that many processes spread; not under a minute, and not after `refresh_s`."""
    now, added = [1000.0], generate_key("ES256")
    headers = (f"Cache-Control: public, max-age={max_age_s}",)
    issuer.publish(headers=headers)
    verifier = start(freshness="inline", refresh_s=300, monotonic=lambda: now[0], jitter=lambda: 1.0)
    verifier.verify(issuer.token())
    issuer.publish(issuer.key, added, headers=headers)
    now[0] += after_s - 1
    verifier.verify(issuer.token())
    assert verifier.status().keys == (issuer.key.kid,)
    now[0] += 1
    verifier.verify(issuer.token())
    assert verifier.status().keys == (issuer.key.kid, added.kid)


async def test_an_unknown_key_is_waited_for_once_in_each_cooldown(issuer: FakeIssuer, start: Start) -> None:
    ahead_s = [0.0]
    verifier = start(cooldown_s=1000, refresh_s=3000, monotonic=lambda: time.monotonic() + ahead_s[0])
    await verifier.averify(issuer.token())
    stranger = issuer.token(generate_key("ES256"))
    for cooldown in range(3):
        for _ in range(5):
            with pytest.raises(UnknownKey):
                await verifier.averify(stranger)
            assert issuer.server.requests.count("/jwks.json") == 2 + cooldown
        ahead_s[0] += 1001
