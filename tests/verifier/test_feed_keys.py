"""The feed's own keys rotate: the issuer goes on signing with another one, planned or not; over real TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from jotgate import Key, KeySet, Verifier, generate_key
from jotgate.verifier import feed as module
from jotgate.verifier.transport import Answer, HttpsTransport
from tests.verifier.feed_server import KEYS, SNAPSHOT, STREAM, FakeFeed, wait_until
from tests.verifier.hearing import BOUND_S, Clock, check_heard, refused, status, wait_mode
from tests.verifier.servers import WITHIN_S, http_answer

Start = Callable[..., Verifier]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in real life takes tenths here; the time between two fetches of keys is moved by the clock."""
    monkeypatch.setattr(module, "DEAD_S", 1.0)
    monkeypatch.setattr(module, "POLL_S", 0.1)
    monkeypatch.setattr(module, "_LONGEST_RETRY_S", 0.2)
    monkeypatch.setattr(module, "_LONGEST_INLINE_RETRY_S", 0.2)


@dataclass
class Following:
    """A verifier that hears of revocations in one of the three ways, and who tells it."""

    verifier: Verifier
    feed: FakeFeed
    clock: Clock

    @property
    def fetches(self) -> int:
        """How often the feed's keys have been fetched."""
        return self.feed.issuer.server.requests.count(KEYS)

    def asked(self, path: str) -> list[str]:
        """The requests for what begins so."""
        return [request for request in self.feed.issuer.server.requests if request.startswith(path)]

    def publish(self, *keys: Key) -> None:
        self.feed.issuer.server.answers[KEYS] = http_answer(KeySet(keys).to_jwks())

    def check_heard(self, sid: str) -> None:
        check_heard(self.verifier, self.feed, sid, BOUND_S)

    def use(self) -> None:
        """Without threads, nothing happens unless somebody verifies."""
        self.verifier.verify(self.feed.issuer.token())

    def wait(self, true: Callable[[], object]) -> None:
        def used_and_true() -> object:
            self.use()
            return true()

        wait_until(used_and_true)

    def knows(self, key: Key) -> bool:
        remote = self.verifier._remote
        return remote is not None and remote.feed._keys is not None and key.kid in remote.feed._keys

    def check_not_believed(self, signer: Key, sid: str) -> None:
        """What `signer` says of a session is not taken, however often it comes; what the issuer signs then, is."""
        token = self.feed.issuer.token(session=sid)
        self.feed.signer = signer
        self.feed.revoke(sid)
        self.wait(lambda: status(self.verifier).last_error)
        assert not refused(self.verifier, token)
        self.feed.signer = None
        self.wait(lambda: refused(self.verifier, token))


@pytest.fixture(params=["stream", "poll", "inline"])
def following(feed: FakeFeed, start: Start, request: pytest.FixtureRequest) -> Following:
    mode: str = request.param
    feed.publish(stream=mode == "stream")
    clock = Clock()
    verifier = start(freshness="inline" if mode == "inline" else "background", monotonic=clock)
    verifier.wait_ready(WITHIN_S)
    made = Following(verifier, feed, clock)
    made.wait(lambda: status(verifier).mode == mode)
    made.check_heard("first")
    assert made.fetches == 1
    return made


def test_a_message_under_a_new_key_is_judged_again_by_the_keys_of_now(following: Following) -> None:
    connections = len(following.feed.positions)
    for number in range(3):
        following.feed.key = generate_key("ES256")
        following.publish(following.feed.key)
        following.check_heard(f"s{number}")
        assert following.fetches == number + 2
        following.clock.ahead_s += module.KEYS_AGAIN_S
    assert len(following.feed.positions) == connections  # the stream went on
    assert status(following.verifier).last_error is None


def test_a_key_that_the_issuer_dropped_is_not_believed_any_more(following: Following) -> None:
    old, following.feed.key = following.feed.key, generate_key("ES256")
    following.publish(following.feed.key)
    following.check_heard("a")
    following.check_not_believed(old, "b")
    following.check_heard("c")


def test_a_key_that_is_published_ahead_is_known_before_it_signs(following: Following) -> None:
    old, new = following.feed.key, generate_key("ES256")
    following.publish(old, new)
    following.feed.revoke("some key of the tokens", kind="key")  # then all keys are fetched, as by the schedule
    following.wait(lambda: following.knows(new))
    following.feed.key = new
    following.check_heard("a")
    following.publish(new)
    following.check_heard("b")
    assert following.fetches == 2


def test_the_feeds_keys_are_fetched_with_each_fetch_of_the_tokens_keys(following: Following) -> None:
    """So that one that is published no more is not believed for longer than a key of the tokens would be."""
    old, following.feed.key = following.feed.key, generate_key("ES256")
    following.publish(following.feed.key)
    following.feed.signer = old  # a replica that lags, or a thief
    following.check_heard("a")
    following.feed.revoke("some key of the tokens", kind="key")  # which makes them be fetched
    following.wait(lambda: not following.knows(old))
    following.check_not_believed(old, "b")


def test_a_revoked_key_of_the_feed_is_not_believed_wherever_it_is_published(following: Following) -> None:
    old, following.feed.key = following.feed.key, generate_key("ES256")
    following.publish(old, following.feed.key)  # a cache on the way still has it
    following.feed.signer = old
    following.feed.revoke(old.kid, kind="key")
    following.wait(lambda: following.fetches >= 2)
    following.wait(lambda: status(following.verifier).last_error)
    following.feed.signer = None
    following.check_heard("a")
    following.clock.ahead_s += module.KEYS_AGAIN_S
    following.check_not_believed(old, "b")


def test_while_the_new_key_cannot_be_fetched_what_is_known_stays(following: Following) -> None:
    following.feed.key = generate_key("ES256")
    following.feed.issuer.server.answers[KEYS] = http_answer({}, status="500 Internal Server Error")
    token = following.feed.issuer.token(session="s")
    following.feed.revoke("s")
    following.wait(lambda: "status 500" in str(status(following.verifier).last_error))
    assert refused(following.verifier, following.feed.issuer.token(session="first"))
    assert not refused(following.verifier, token)
    following.publish(following.feed.key)
    following.clock.ahead_s += module.KEYS_AGAIN_S
    following.wait(lambda: refused(following.verifier, token))
    following.check_heard("t")


def test_a_fault_of_the_scheduled_fetch_is_told_and_the_known_keys_serve_on(following: Following) -> None:
    good = following.feed.issuer.server.answers[KEYS]
    following.feed.issuer.server.answers[KEYS] = http_answer({"keys": []})
    following.feed.revoke("some key of the tokens", kind="key")
    following.wait(lambda: "no usable key" in str(status(following.verifier).keys_error))
    following.check_heard("a")
    assert status(following.verifier).last_error is None
    following.feed.issuer.server.answers[KEYS] = good
    following.feed.revoke("another", kind="key")
    following.wait(lambda: status(following.verifier).keys_error is None)


def test_keys_that_could_not_be_fetched_for_too_long_are_not_believed(feed: FakeFeed, start: Start) -> None:
    clock = Clock()
    verifier = start(monotonic=clock, refresh_s=0.1)
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    feed.issuer.server.answers[KEYS] = http_answer({}, status="500 Internal Server Error")
    wait_until(lambda: "status 500" in str(status(verifier).keys_error))
    clock.ahead_s += 3_590
    wait_until(lambda: verifier.status().ready and verifier.status().last_error is None)
    check_heard(verifier, feed, "a", BOUND_S)
    clock.ahead_s += 3_600
    wait_until(lambda: status(verifier).last_error)
    feed.revoke("b")
    wait_until(lambda: verifier.status().ready)
    asked = feed.issuer.server.requests.count(KEYS)
    feed.issuer.server.wait_requests(asked + 5, KEYS)
    assert not refused(verifier, feed.issuer.token(session="b"))
    feed.issuer.server.answers |= feed.answers
    wait_until(lambda: refused(verifier, feed.issuer.token(session="b")))


def test_garbage_under_unknown_keys_causes_no_more_than_two_fetches_in_each_time(following: Following) -> None:
    following.feed.signer = generate_key("ES256")
    following.feed.revoke("victim")
    path = STREAM if following.feed.positions else f"{SNAPSHOT}?"
    for _ in range(2):
        asked, fetched = len(following.asked(path)), following.fetches
        following.wait(lambda: len(following.asked(path)) >= asked + 5)  # noqa: B023 # called at once
        assert following.fetches <= fetched + 2  # one for the unknown key, and one for a connection made anew
        following.clock.ahead_s += module.KEYS_AGAIN_S
    following.feed.signer = None
    following.check_heard("s")


def test_a_scheduled_fetch_that_comes_slowly_does_not_hold_up_a_revocation(feed: FakeFeed, start: Start) -> None:
    verifier = start()
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    asked = threading.Event()

    def never(connection: ssl.SSLSocket) -> None:
        asked.set()
        feed.issuer.server.stopping.wait(WITHIN_S)

    feed.issuer.server.answers[KEYS] = never
    feed.revoke("some key of the tokens", kind="key")
    assert asked.wait(WITHIN_S)
    check_heard(verifier, feed, "s", BOUND_S)


def test_a_fault_of_a_transport_while_it_fetches_the_feeds_keys_ends_no_thread(feed: FakeFeed, start: Start) -> None:
    https = HttpsTransport(feed.issuer.server.certificates.ca)
    broken = threading.Event()

    def transport(url: str, timeout_s: float) -> Answer:
        if broken.is_set() and url.endswith(KEYS):
            raise ZeroDivisionError
        return https.get(url, timeout_s, max_bytes=1 << 20)

    verifier = start(transport=transport)
    verifier.wait_ready(WITHIN_S)
    check_heard(verifier, feed, "a")
    broken.set()
    feed.revoke("some key of the tokens", kind="key")
    wait_until(lambda: status(verifier).keys_error == "unexpected ZeroDivisionError")
    feed.issuer.key = generate_key("ES256")
    feed.issuer.publish()
    feed.publish()
    assert verifier.verify(feed.issuer.token())  # the thread that fetches the tokens' keys lives
