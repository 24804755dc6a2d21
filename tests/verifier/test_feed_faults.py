"""A verifier that follows a revocation feed over real TLS connections, which behave well or badly."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from jotgate import Claims, KeySourceError, Revocation, SettingsError, TokenRevoked, Verifier, generate_key
from jotgate.core.feed import MAX_EVENT_BYTES, MAX_SNAPSHOT_BYTES
from jotgate.verifier import feed as module
from jotgate.verifier.following import REGRESS_S
from jotgate.verifier.transport import HttpsTransport
from tests.verifier.feed_server import KEYS, SNAPSHOT, STREAM, FakeFeed, wait_until
from tests.verifier.hearing import BOUND_S, Clock, check_heard, refused, status, threads, wait_mode
from tests.verifier.servers import WITHIN_S, Answering, FakeIssuer, http_answer

Start = Callable[..., Verifier]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in real life takes tenths here."""
    monkeypatch.setattr(module, "DEAD_S", 1.0)
    monkeypatch.setattr(module, "FIRST_FRAME_S", 0.5)
    monkeypatch.setattr(module, "LASTS_S", 0.4)
    monkeypatch.setattr(module, "POLL_S", 0.1)
    monkeypatch.setattr(module, "KEYS_AGAIN_S", 0.1)
    monkeypatch.setattr(module, "_FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(module, "_LONGEST_RETRY_S", 0.1)


@pytest.fixture
def following(feed: FakeFeed, start: Start) -> Verifier:
    """A verifier that follows the stream, and knows one revocation already."""
    feed.revoke("gone")
    verifier = start()
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    return verifier


# As it should be


def test_what_is_revoked_is_refused_within_the_bound_and_nobody_else_is(following: Verifier, feed: FakeFeed) -> None:
    assert refused(following, feed.issuer.token(session="gone"))
    for number in range(20):
        check_heard(following, feed, f"s{number}", BOUND_S)
    assert following.verify(feed.issuer.token(session="other")).session_id == "other"
    assert following.verify(feed.issuer.token()).session_id is None


def test_what_was_revoked_before_the_first_start_is_never_accepted(feed: FakeFeed, start: Start) -> None:
    token = feed.issuer.token(session="gone")
    feed.revoke("gone")
    for _ in range(5):
        with pytest.raises(TokenRevoked):
            start().verify(token)


async def test_the_same_holds_in_an_event_loop(feed: FakeFeed, start: Start) -> None:
    token = feed.issuer.token(session="gone")
    feed.revoke("gone")
    with pytest.raises(TokenRevoked):
        await start().averify(token)
    ready = start()
    await ready.await_ready(WITHIN_S)
    with pytest.raises(TokenRevoked):
        ready.verify(token)


def test_status_tells_how_things_stand(following: Verifier, feed: FakeFeed) -> None:
    told = status(following)
    assert (told.mode, told.on_silence, told.entries, told.log_id, told.head) == ("stream", "accept", 1, "log", 1)
    assert told.lag_s is not None
    assert 0 <= told.lag_s < WITHIN_S
    feed.revoke("a", "b")
    wait_until(lambda: (status(following).entries, status(following).head) == (3, 2))


def test_on_revoked_is_told_once_the_revocation_counts(following: Verifier, feed: FakeFeed) -> None:
    token = feed.issuer.token(session="mine")
    claims = following.verify(token)
    seen: list[tuple[Revocation, bool]] = []
    others: list[Revocation] = []

    def note(revocation: Revocation) -> None:
        if revocation.covers(claims):
            seen.append((revocation, refused(following, token)))

    stop = following.on_revoked(note)
    following.on_revoked(others.append)
    feed.revoke("others")
    feed.revoke("mine")
    wait_until(lambda: seen)
    assert seen == [(Revocation("session", ("mine",), seen[0][0].at), True)]
    stop()
    stop()  # once more does no harm
    feed.revoke("mine too")
    wait_until(lambda: any("mine too" in each.ids for each in others))
    assert len(seen) == 1


def test_a_callback_that_fails_is_logged_and_stops_nothing(
    following: Verifier, feed: FakeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Revocation] = []

    def fail(revocation: Revocation) -> None:
        raise ZeroDivisionError

    following.on_revoked(fail)
    following.on_revoked(told.append)
    check_heard(following, feed, "a")
    check_heard(following, feed, "b")
    wait_until(lambda: len(told) == 2)
    assert "ZeroDivisionError" in caplog.text
    assert status(following).mode == "stream"


def test_a_mass_revocation_ends_what_was_issued_before_it(following: Verifier, feed: FakeFeed) -> None:
    token = feed.issuer.token()
    feed.revoke(kind="all")
    wait_until(lambda: refused(following, token))


def test_a_revoked_key_is_not_believed_any_more_and_its_successor_is_fetched(
    following: Verifier, feed: FakeFeed
) -> None:
    old, new = feed.issuer.token(), generate_key("ES256")
    kid, feed.issuer.key = feed.issuer.key.kid, new
    assert following.verify(old)
    feed.issuer.server.answers[feed.issuer.jwks_path] = http_answer({"keys": [new.public.to_jwk()]})
    feed.revoke(kid, kind="key")
    wait_until(lambda: following.status().keys == (new.kid,))
    assert following.verify(feed.issuer.token())
    # Also where the key set still has it.
    feed.revoke(new.kid, kind="key")
    wait_until(lambda: following.status().keys == ())


def test_a_key_set_that_comes_slowly_does_not_hold_up_a_revocation(following: Verifier, feed: FakeFeed) -> None:
    asked = threading.Event()

    def never(connection: ssl.SSLSocket) -> None:
        asked.set()
        feed.issuer.server.stopping.wait(WITHIN_S)

    feed.issuer.server.answers[feed.issuer.jwks_path] = never
    feed.revoke("a key", kind="key")
    assert asked.wait(WITHIN_S)
    check_heard(following, feed, "s", BOUND_S)


# The issuer has no feed, or none that is a stream


@pytest.mark.parametrize("jwks_uri", [False, True])
def test_an_issuer_without_a_feed_gets_no_thread_for_it(issuer: FakeIssuer, start: Start, *, jwks_uri: bool) -> None:
    before = threads()
    verifier = start(jwks_uri=issuer.server.url + issuer.jwks_path if jwks_uri else None)
    assert verifier.verify(issuer.token())
    assert threads() == before
    assert (status(verifier).mode, status(verifier).last_error) == ("none", None)


def test_an_issuer_without_a_feed_is_silent_to_whoever_refuses_silence(issuer: FakeIssuer, start: Start) -> None:
    verifier = start(on_silence="refuse", key_wait_s=0.1)
    with pytest.raises(KeySourceError):
        verifier.wait_ready(0.5)
    with pytest.raises(SettingsError, match="metadata"):
        issuer.verifier(on_silence="refuse", jwks_uri=issuer.server.url + issuer.jwks_path)


@pytest.mark.parametrize("name", ["on_silence", "freshness"])
def test_policies_have_to_be_named_right(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Verifier(issuer="https://issuer.example", audience="api", **{name: "maybe"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "member", ["jotgate_revocations_uri", "jotgate_revocations_jwks_uri", "jotgate_revocations_stream_uri"]
)
def test_a_feed_at_an_address_that_is_not_https_is_refused(
    issuer: FakeIssuer, feed: FakeFeed, start: Start, member: str
) -> None:
    addresses = {
        "jotgate_revocations_uri": issuer.server.url + SNAPSHOT,
        "jotgate_revocations_jwks_uri": issuer.server.url + KEYS,
        "jotgate_revocations_stream_uri": issuer.server.url + STREAM,
    }
    bad = issuer.metadata | addresses | {member: "http://localhost/revocations"}
    issuer.server.answers[issuer.metadata_path] = http_answer(bad)
    with pytest.raises(KeySourceError, match=member):
        start().verify(issuer.token())


def test_where_no_stream_is_named_it_asks_again_and_again(feed: FakeFeed, start: Start) -> None:
    feed.publish(stream=False)
    feed.revoke("gone")
    verifier = start()
    assert refused(verifier, feed.issuer.token(session="gone"))
    for number in range(3):
        check_heard(verifier, feed, f"s{number}", BOUND_S)
    assert status(verifier).mode == "poll"
    assert feed.issuer.server.requests.count(SNAPSHOT) == 1  # from then on only what is new


def test_a_transport_of_the_users_own_is_asked_again_and_again(feed: FakeFeed, start: Start) -> None:
    https = HttpsTransport(feed.issuer.server.certificates.ca)
    verifier = start(transport=partial(https.get, max_bytes=1 << 20))
    check_heard(verifier, feed, "s", BOUND_S)
    assert status(verifier).mode == "poll"


def test_a_proxy_that_holds_the_stream_back_is_noticed_and_asked_instead(
    feed: FakeFeed, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buffering(connection: ssl.SSLSocket) -> None:
        held = bytearray()
        feed.serve(connection, held.extend)

    monkeypatch.setattr(module, "STREAM_AGAIN_S", 0.3)
    feed.issuer.server.answers[STREAM] = buffering
    verifier = start()
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "poll")
    check_heard(verifier, feed, "s", BOUND_S)
    feed.issuer.server.answers[STREAM] = feed.stream
    wait_mode(verifier, "stream")  # it is tried again from time to time
    check_heard(verifier, feed, "t", BOUND_S)


def test_a_proxy_that_holds_back_all_but_the_beginning_is_noticed_too(
    feed: FakeFeed, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begins_well(connection: ssl.SSLSocket) -> None:
        parts: list[bytes] = []

        def send(part: bytes) -> None:
            parts.append(part)
            if len(parts) == 1:
                connection.sendall(part)

        feed.serve(connection, send)

    monkeypatch.setattr(module, "STREAM_AGAIN_S", 2.0)
    feed.issuer.server.answers[STREAM] = begins_well
    verifier = start()
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "poll")
    check_heard(verifier, feed, "s", BOUND_S)
    wait_mode(verifier, "stream")  # it is tried again from time to time
    wait_mode(verifier, "poll")
    feed.issuer.server.answers[STREAM] = feed.stream
    wait_mode(verifier, "stream")
    check_heard(verifier, feed, "t", BOUND_S)


def test_streams_that_fall_silent_after_a_while_are_listened_to_again(following: Verifier, feed: FakeFeed) -> None:
    """A router that forgets connections, say: no proxy that holds anything back."""

    def falls_silent(connection: ssl.SSLSocket) -> None:
        until = time.monotonic() + 3 * module.LASTS_S
        feed.serve(connection, lambda part: connection.sendall(part) if time.monotonic() < until else None)

    feed.issuer.server.answers[STREAM] = falls_silent
    seen = len(feed.positions)
    feed.cut()
    wait_until(lambda: len(feed.positions) >= seen + 4)
    check_heard(following, feed, "s")
    assert feed.issuer.server.requests.count(SNAPSHOT) == 1  # at the start: it is never asked for again
    assert status(following).mode == "stream"


@pytest.mark.parametrize(
    ("refusal", "again"),
    [
        (http_answer({}, status="404 Not Found"), "STREAM_AGAIN_S"),
        (http_answer(b"<!doctype html>"), "STREAM_AGAIN_S"),
        (http_answer({}, status="503 Service Unavailable"), "STREAM_SOON_S"),
        (http_answer({}, status="502 Bad Gateway"), "STREAM_SOON_S"),
        (http_answer({}, status="429 Too Many Requests"), "STREAM_SOON_S"),
    ],
)
def test_a_stream_that_is_refused_is_tried_again_soon_only_where_that_may_help(
    feed: FakeFeed, start: Start, monkeypatch: pytest.MonkeyPatch, refusal: Answering, again: str
) -> None:
    monkeypatch.setattr(module, "STREAM_AGAIN_S", WITHIN_S * 100)
    monkeypatch.setattr(module, "STREAM_SOON_S", WITHIN_S * 100)
    monkeypatch.setattr(module, again, 0.2)
    feed.issuer.server.answers[STREAM] = refusal
    verifier = start()
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "poll")
    check_heard(verifier, feed, "s", BOUND_S)
    feed.issuer.server.answers[STREAM] = feed.stream
    wait_mode(verifier, "stream")


def test_an_issuer_that_was_away_is_listened_to_again_and_not_asked_again_and_again(
    feed: FakeFeed, following: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEYS_AGAIN_S", WITHIN_S * 100)
    answers = feed.issuer.server.answers
    working, before = dict(answers), feed.issuer.server.requests.count(STREAM)
    answers.update(dict.fromkeys(answers, lambda connection: connection.shutdown(socket.SHUT_RDWR)))
    feed.cut()
    feed.issuer.server.wait_requests(before + 3, STREAM)
    answers.update(working)
    wait_mode(following, "stream")
    check_heard(following, feed, "s", BOUND_S)


# Connections that break


def test_after_a_cut_it_goes_on_from_where_it_was(following: Verifier, feed: FakeFeed) -> None:
    token = feed.issuer.token(session="meanwhile")
    feed.issuer.server.answers[STREAM] = http_answer({}, status="500 Internal Server Error")
    feed.cut()
    wait_until(lambda: status(following).last_error)
    feed.revoke("meanwhile")
    feed.issuer.server.answers[STREAM] = feed.stream
    wait_until(lambda: refused(following, token))
    check_heard(following, feed, "later")
    assert feed.issuer.server.requests.count(SNAPSHOT) == 1
    assert set(feed.positions) <= {f"log.{seq}" for seq in range(1, 4)}


def test_a_stream_that_is_cut_again_and_again_loses_nothing(following: Verifier, feed: FakeFeed) -> None:
    for number in range(10):
        feed.cut()
        check_heard(following, feed, f"s{number}")


def test_a_black_hole_is_noticed(following: Verifier, feed: FakeFeed) -> None:
    """The connection stays, and nothing comes any more."""
    dropping = threading.Event()

    def hole(connection: ssl.SSLSocket) -> None:
        feed.serve(connection, lambda frames: None if dropping.is_set() else connection.sendall(frames))

    feed.issuer.server.answers[STREAM] = hole
    seen = len(feed.positions)
    feed.cut()
    wait_until(lambda: len(feed.positions) > seen)
    wait_mode(following, "stream")
    dropping.set()
    feed.issuer.server.answers[STREAM] = feed.stream
    check_heard(following, feed, "s")


def test_a_delay_delays_and_loses_nothing(following: Verifier, feed: FakeFeed) -> None:
    def late(connection: ssl.SSLSocket) -> None:
        def send(frames: bytes) -> None:
            time.sleep(0.3)  # the wire is so long
            connection.sendall(frames)

        feed.serve(connection, send)

    feed.issuer.server.answers[STREAM] = late
    feed.cut()
    for number in range(3):
        check_heard(following, feed, f"s{number}")
    assert status(following).mode == "stream"


def test_frames_may_arrive_in_any_pieces(following: Verifier, feed: FakeFeed) -> None:
    def in_pieces(connection: ssl.SSLSocket) -> None:
        def send(frames: bytes) -> None:
            for start in range(0, len(frames), 7):
                connection.sendall(frames[start : start + 7])

        feed.serve(connection, send)

    feed.issuer.server.answers[STREAM] = in_pieces
    feed.cut()
    check_heard(following, feed, "s", BOUND_S * 3)


def chunked(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    feed.positions.append("")
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    sent = 0
    while not feed.issuer.server.stopping.wait(0.02):
        frames = feed.frame(sent, len(feed.log))
        sent = len(feed.log)
        connection.sendall(b"%x\r\n%s\r\n" % (len(frames), frames))


def test_a_chunked_stream_is_understood(following: Verifier, feed: FakeFeed) -> None:
    feed.issuer.server.answers[STREAM] = lambda connection: chunked(connection, feed)
    feed.cut()
    check_heard(following, feed, "s")
    check_heard(following, feed, "t", BOUND_S)


# What comes is not what it should be

GARBAGE: dict[str, Callable[[FakeFeed], bytes]] = {
    "no frames": lambda feed: b"\x00\xff garbage \xfe" * 50 + b"\n\n",
    "html": lambda feed: b"<!doctype html>\n<title>Bad Gateway</title>\n\n" * 30,
    "not signed": lambda feed: b"event: revocations\ndata: a.b.c\n\n",
    "no data": lambda feed: b"event: revocations\ndata:\n\n" * 5_000 + b"x: " + b"x" * MAX_EVENT_BYTES,
    "a huge frame": lambda feed: b"event: revocations\ndata: " + b"x" * (MAX_EVENT_BYTES + 2_000) + b"\n\n",
    "lines without an end": lambda feed: b"data: x\n" * MAX_EVENT_BYTES,
    "comments without an end": lambda feed: b": still here\n\n" * MAX_EVENT_BYTES,
    "a snapshot as an event": lambda feed: b"event: revocations\ndata: " + feed.snapshot() + b"\n\n",
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_the_stream_changes_nothing_and_is_got_over(
    following: Verifier, feed: FakeFeed, garbage: str
) -> None:
    sent = threading.Event()

    def spoiled(connection: ssl.SSLSocket) -> None:
        position = feed.open(connection)
        connection.sendall(feed.frames(position))
        sent.set()
        connection.sendall(GARBAGE[garbage](feed))
        feed.issuer.server.stopping.wait(0.2)

    feed.issuer.server.answers[STREAM] = spoiled
    feed.cut()
    assert sent.wait(WITHIN_S)
    wait_until(lambda: status(following).last_error)
    assert refused(following, feed.issuer.token(session="gone"))
    feed.issuer.server.answers[STREAM] = feed.stream
    check_heard(following, feed, "s")


def by_another_key(feed: FakeFeed) -> None:
    feed.signer = generate_key("ES256")


def by_the_key_of_the_tokens(feed: FakeFeed) -> None:
    feed.signer = feed.issuer.key


def in_another_name(feed: FakeFeed) -> None:
    feed.named = "https://issuer.example"


@pytest.mark.parametrize("forge", [by_another_key, by_the_key_of_the_tokens, in_another_name])
def test_what_the_issuer_has_not_signed_for_the_feed_is_not_believed(
    following: Verifier, feed: FakeFeed, forge: Callable[[FakeFeed], None]
) -> None:
    token = feed.issuer.token(session="victim")
    forge(feed)
    feed.revoke("victim")
    wait_until(lambda: status(following).last_error)
    seen = len(feed.positions)
    wait_until(lambda: len(feed.positions) > seen + 1)
    assert not refused(following, token)
    assert refused(following, feed.issuer.token(session="gone"))
    feed.signer = feed.named = None
    wait_until(lambda: refused(following, token))


def test_a_gap_is_closed_before_it_counts_as_heard(following: Verifier, feed: FakeFeed) -> None:
    """One event is left out; heartbeats go on as if nothing had happened."""
    connected = threading.Event()

    def forgetful(connection: ssl.SSLSocket) -> None:
        feed.open(connection)
        connection.sendall(feed.frame(1, 1))
        connected.set()
        while len(feed.log) < 3 and not feed.issuer.server.stopping.wait(0.01):
            pass
        feed.issuer.server.answers[STREAM] = feed.stream
        connection.sendall(feed.frame(2, 3) + feed.frame(3, 3))
        feed.issuer.server.stopping.wait(WITHIN_S)

    feed.issuer.server.answers[STREAM] = forgetful
    feed.cut()
    assert connected.wait(WITHIN_S)
    lost, seen = feed.issuer.token(session="lost"), feed.issuer.token(session="seen")
    feed.revoke("lost")
    feed.revoke("seen")
    wait_until(lambda: refused(following, seen))
    wait_until(lambda: refused(following, lost))
    wait_until(lambda: status(following).head == 3)


def test_an_old_snapshot_takes_nothing_back(following: Verifier, feed: FakeFeed) -> None:
    old = feed.snapshot(now=feed.now - 5)
    check_heard(following, feed, "s")
    asked = feed.issuer.server.requests.count(SNAPSHOT)
    feed.issuer.server.answers[SNAPSHOT] = http_answer(old)

    def resync(connection: ssl.SSLSocket) -> None:
        feed.serve(connection, lambda frames: connection.sendall(b"event: resync\ndata: -\n\n" + frames))

    feed.issuer.server.answers[STREAM] = resync
    feed.cut()
    feed.issuer.server.wait_requests(asked + 2, SNAPSHOT)
    assert refused(following, feed.issuer.token(session="s"))
    assert refused(following, feed.issuer.token(session="gone"))
    assert status(following).head == 2
    feed.issuer.server.answers |= feed.answers
    check_heard(following, feed, "t")


def test_a_database_put_back_makes_nobody_forget(following: Verifier, feed: FakeFeed) -> None:
    check_heard(following, feed, "s")
    with feed._changed:
        feed.log_id, feed.log = "another", []
        feed._changed.notify_all()
    wait_until(lambda: status(following).log_id == "another")
    assert refused(following, feed.issuer.token(session="s"))
    assert refused(following, feed.issuer.token(session="gone"))
    check_heard(following, feed, "t")
    assert status(following).head == 1


# Each address fails in each way, and then works again


def drip(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 200000\r\n\r\n")
    while not feed.issuer.server.stopping.wait(0.01):
        connection.sendall(b":")


def endless(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65_536)


def silent(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    feed.issuer.server.stopping.wait(WITHIN_S)


def hang_up(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    connection.shutdown(2)


def truncated(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    body = feed.snapshot()
    http_answer(body[:-9], length=len(body))(connection)


def compressed(connection: ssl.SSLSocket, feed: FakeFeed) -> None:
    http_answer(feed.snapshot(), headers=("Content-Encoding: gzip",))(connection)


FAULTS: dict[str, Callable[[ssl.SSLSocket, FakeFeed], None]] = {
    "500": lambda connection, _: http_answer({}, status="500 Internal Server Error")(connection),
    "redirect": lambda connection, _: http_answer({}, status="302 Found", headers=("Location: /x",))(connection),
    "garbage": lambda connection, _: http_answer(b"\xff\xfe garbage")(connection),
    "truncated": truncated,
    "compressed": compressed,
    "a bomb": endless,
    "drip": drip,
    "silence": silent,
    "hang-up": hang_up,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", [SNAPSHOT, STREAM, KEYS])
def test_a_fault_leaves_what_is_known_and_is_got_over(feed: FakeFeed, start: Start, path: str, fault: str) -> None:
    feed.revoke("gone")
    verifier = start(timeout_s=0.5)
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    failed = threading.Event()

    def fail(connection: ssl.SSLSocket) -> None:
        failed.set()
        FAULTS[fault](connection, feed)

    feed.issuer.server.answers[path] = fail
    with feed._changed:
        feed.log_id = "renewed"  # so that the snapshot has to be fetched, too
    feed.cut()
    assert failed.wait(WITHIN_S)
    wait_until(lambda: status(verifier).last_error or status(verifier).mode == "poll")
    assert refused(verifier, feed.issuer.token(session="gone"))
    assert verifier.verify(feed.issuer.token(session="other"))
    feed.issuer.server.answers |= feed.answers
    check_heard(verifier, feed, "s")


def test_a_snapshot_over_its_bound_is_not_read_to_its_end(feed: FakeFeed, start: Start) -> None:
    """32 MiB and no more, however much is sent."""
    sent = 0
    ended = threading.Event()

    def bomb(connection: ssl.SSLSocket) -> None:
        nonlocal sent
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65_536)
                sent += 65_536
        finally:
            ended.set()

    feed.issuer.server.answers[SNAPSHOT] = bomb
    verifier = start()
    verifier.wait_ready(WITHIN_S)
    assert ended.wait(WITHIN_S)
    assert sent < 2 * MAX_SNAPSHOT_BYTES
    assert "larger than" in str(status(verifier).last_error)


# Silence


def hush(feed: FakeFeed) -> None:
    """The feed ends, and everything else goes on."""
    for path in (SNAPSHOT, STREAM, KEYS):
        feed.issuer.server.answers[path] = http_answer({}, status="500 Internal Server Error")
    feed.cut()


def test_silence_is_accepted_where_that_is_the_policy(feed: FakeFeed, start: Start) -> None:
    clock = Clock()
    verifier = start(monotonic=clock)
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    feed.revoke("gone")
    token = feed.issuer.token(session="gone")
    wait_until(lambda: refused(verifier, token))
    hush(feed)
    wait_until(lambda: status(verifier).last_error)
    clock.ahead_s += 31
    assert status(verifier).mode == "silent"
    assert verifier.status().ready
    assert verifier.verify(feed.issuer.token(session="other"))
    assert refused(verifier, token)
    feed.issuer.server.answers |= feed.answers
    wait_mode(verifier, "stream")


def test_silence_is_refused_where_that_is_the_policy(feed: FakeFeed, start: Start) -> None:
    clock = Clock()
    verifier = start(monotonic=clock, on_silence="refuse", max_staleness_s=20)
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    token = feed.issuer.token()
    hush(feed)
    wait_until(lambda: status(verifier).last_error)
    clock.ahead_s += 10
    assert verifier.verify(token)
    clock.ahead_s += 10
    with pytest.raises(KeySourceError, match="have not been heard of for too long"):
        verifier.verify(token)
    assert status(verifier).mode == "silent"
    assert not verifier.status().ready
    feed.issuer.server.answers |= feed.answers
    verifier.wait_ready(WITHIN_S)
    assert verifier.verify(token)


def test_heartbeats_alone_keep_a_verifier_that_refuses_silence_going(feed: FakeFeed, start: Start) -> None:
    clock = Clock()
    verifier = start(monotonic=clock, on_silence="refuse", max_staleness_s=20)
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    token = feed.issuer.token()
    for _ in range(5):
        clock.ahead_s += 19
        wait_until(lambda: (status(verifier).lag_s or 99) < 1)
        assert verifier.verify(token)


def silent_feed(feed: FakeFeed) -> None:
    for path in (SNAPSHOT, STREAM, KEYS):
        feed.issuer.server.answers[path] = lambda connection: silent(connection, feed)


def test_a_first_start_without_the_feed_waits_a_little_and_then_goes_by_the_policy(
    feed: FakeFeed, start: Start
) -> None:
    silent_feed(feed)
    token = feed.issuer.token()
    accepting = start(key_wait_s=0.3)
    accepting.wait_ready(0.5)  # the time is up, and there are keys
    assert accepting.verify(token)
    refusing = start(key_wait_s=0.3, on_silence="refuse")
    with pytest.raises(KeySourceError, match="are not known yet"):
        refusing.wait_ready(0.5)
    with pytest.raises(KeySourceError, match="are not known yet"):
        refusing.verify(token)


async def test_a_first_start_without_the_feed_blocks_no_event_loop(feed: FakeFeed, start: Start) -> None:
    silent_feed(feed)
    verifier, token = start(key_wait_s=0.2), feed.issuer.token()
    began = time.monotonic()
    assert (await verifier.averify(token)).subject == "alice"
    assert verifier.verify(token).subject == "alice"
    assert time.monotonic() - began < WITHIN_S / 2


def test_an_outage_is_logged_once_with_its_policy_and_so_is_its_end(
    following: Verifier, feed: FakeFeed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jotgate.verifier")
    feed.issuer.server.answers[KEYS] = http_answer({}, status="500 Internal Server Error")
    asked = feed.issuer.server.requests.count(KEYS)
    feed.cut()
    feed.issuer.server.wait_requests(asked + 4, KEYS)
    feed.issuer.server.answers |= feed.answers
    wait_mode(following, "stream")
    told = [record for record in caplog.records if "revocation" in record.message]
    kinds = [record.levelname for record in told]
    assert kinds.count("INFO") == 1
    assert kinds.count("WARNING") <= 2  # that it was cut, and that it cannot be had
    assert any("after 30 s of silence: accept" in record.message for record in told)


# Clocks


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_jumps_makes_nobody_forget(feed: FakeFeed, start: Start, hours: int) -> None:
    wall_ahead = 0
    verifier = start(clock=lambda: int(time.time()) + wall_ahead)
    verifier.wait_ready(WITHIN_S)
    check_heard(verifier, feed, "s")
    token = feed.issuer.token(session="s")
    wall_ahead = hours * 3_600
    seen = len(feed.positions)
    feed.cut()
    wait_until(lambda: len(feed.positions) > seen)
    feed.revoke("t")
    wait_until(lambda: status(verifier).entries == 2)  # and it goes on hearing
    wall_ahead = 0
    assert refused(verifier, token)
    assert refused(verifier, feed.issuer.token(session="t"))


def test_an_issuer_whose_clock_was_ahead_and_is_put_right_is_heard_again(
    feed: FakeFeed, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jotgate.verifier.following.REGRESS_S", 2)
    assert REGRESS_S >= 2
    feed.clock_ahead_s = 3_600
    clock = Clock()
    verifier = start(monotonic=clock, on_silence="refuse", max_staleness_s=60)
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    feed.clock_ahead_s = 0
    clock.ahead_s += 61
    wait_until(lambda: status(verifier).mode == "stream")
    check_heard(verifier, feed, "s", BOUND_S)


# Beginning and ending


def test_close_ends_both_threads_at_once_and_the_next_use_goes_on(following: Verifier, feed: FakeFeed) -> None:
    assert following.verify(feed.issuer.token())
    (mine,) = threads()
    assert mine.daemon
    following.close()
    mine.join(module.DEAD_S / 2)  # it does not wait for the stream to die
    assert not mine.is_alive()
    token = feed.issuer.token(session="meanwhile")
    feed.revoke("meanwhile")
    following.verify(feed.issuer.token())
    wait_until(lambda: refused(following, token))
    assert refused(following, feed.issuer.token(session="gone"))
    assert feed.issuer.server.requests.count(SNAPSHOT) == 1


def test_a_verifier_that_nobody_holds_any_more_ends_its_threads(feed: FakeFeed) -> None:
    before = set(threading.enumerate())
    verifier = feed.issuer.verifier()
    verifier.wait_ready(WITHIN_S)
    wait_mode(verifier, "stream")
    mine = (threads() | threads("jotgate-verifier")) - before
    assert len(mine) == 2
    del verifier
    for thread in mine:
        thread.join(WITHIN_S)
    assert not any(thread.is_alive() for thread in mine)


def test_closing_and_using_it_at_once_leaves_it_following(following: Verifier, feed: FakeFeed) -> None:
    ending = threading.Event()

    def use() -> None:
        while not ending.is_set():
            following.verify(feed.issuer.token())

    user = threading.Thread(target=use)
    user.start()
    for _ in range(50):
        following.close()
    ending.set()
    user.join()
    following.verify(feed.issuer.token())
    check_heard(following, feed, "s")


def test_claims_are_covered_as_the_verifier_judges(following: Verifier, feed: FakeFeed) -> None:
    claims: Claims = following.verify(feed.issuer.token(session="a"))
    assert Revocation("session", ("a", "b")).covers(claims)
    assert not Revocation("session", ("b",)).covers(claims)
    assert Revocation("all", (), feed.now).covers(claims)


def test_what_is_open_already_can_be_looked_at_again(following: Verifier, feed: FakeFeed) -> None:
    token = feed.issuer.token(session="mine")
    claims = following.verify(token)
    following.check_revoked(claims)
    feed.revoke("mine")
    wait_until(lambda: refused(following, token))
    with pytest.raises(TokenRevoked):
        following.check_revoked(claims)


# Without threads


def test_without_threads_an_issuer_that_is_away_is_asked_less_and_less(feed: FakeFeed, start: Start) -> None:
    """Else each token would wait for it."""
    clock = Clock()
    verifier, token = start(freshness="inline", monotonic=clock, refresh_s=3_000), feed.issuer.token()
    verifier.verify(token)
    hush(feed)
    asked = feed.issuer.server.requests.count(SNAPSHOT)
    for _ in range(100):
        clock.ahead_s += 1
        assert verifier.verify(token)
    assert 1 <= feed.issuer.server.requests.count(SNAPSHOT) + feed.issuer.server.requests.count(KEYS) - asked <= 20
    feed.issuer.server.answers |= feed.answers
    clock.ahead_s += 30
    verifier.verify(token)
    assert status(verifier).last_error is None
    feed.revoke(kind="all")
    clock.ahead_s += 1
    assert refused(verifier, token)


def test_without_threads_one_asks_and_others_go_on(feed: FakeFeed, start: Start) -> None:
    clock = Clock()
    verifier, token = start(freshness="inline", monotonic=clock), feed.issuer.token()
    verifier.verify(token)
    asked, gate = threading.Event(), threading.Event()

    def wait_then_answer(connection: ssl.SSLSocket) -> None:
        asked.set()
        gate.wait(WITHIN_S)
        feed.answer(connection)

    feed.issuer.server.answers[SNAPSHOT] = wait_then_answer
    clock.ahead_s += 1
    asking = threading.Thread(target=verifier.verify, args=(token,))
    asking.start()
    assert asked.wait(WITHIN_S)
    assert verifier.verify(token)
    assert asking.is_alive()
    gate.set()
    asking.join()
