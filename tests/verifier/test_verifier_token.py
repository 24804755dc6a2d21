"""A verifier that its issuer knows: it says so with each question for revocations, to the issuer and to nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jotgate import SettingsError, TokenRevoked, Verifier
from jotgate.verifier.transport import Answer
from tests.conftest import StartServer
from tests.verifier.feed_server import KEYS, SNAPSHOT, STREAM, FakeFeed
from tests.verifier.hearing import BOUND_S, check_heard
from tests.verifier.servers import http_answer

Start = Callable[..., Verifier]
TOKEN = "v" * 40
SAID = f"Authorization: Bearer {TOKEN}".encode()


def told(feed: FakeFeed) -> dict[str, bool]:
    """Whether each path was asked for with the token."""
    heads = list(feed.issuer.server.heads.values())
    return {head.split(b" ", 2)[1].decode().partition("?")[0]: SAID in head for head in heads}


@pytest.mark.parametrize("stream", [True, False])
def test_the_issuer_is_told_with_each_question_for_revocations(feed: FakeFeed, start: Start, stream: bool) -> None:
    feed.publish(stream=stream)
    verifier = start(verifier_token=TOKEN)
    check_heard(verifier, feed, "gone", BOUND_S)
    asked = told(feed)
    assert asked[SNAPSHOT]
    assert asked.get(STREAM, True)
    # Keys and metadata are everybody's.
    assert not asked[KEYS]
    assert not asked[feed.issuer.metadata_path]


def test_another_host_that_the_metadata_names_is_not_told(feed: FakeFeed, start: Start) -> None:
    feed.publish()
    server = feed.issuer.server
    elsewhere = f"https://127.0.0.1:{server.port}"
    members = {
        "jotgate_revocations_uri": elsewhere + SNAPSHOT,
        "jotgate_revocations_jwks_uri": elsewhere + KEYS,
        "jotgate_revocations_stream_uri": elsewhere + STREAM,
    }
    server.answers[feed.issuer.metadata_path] = http_answer(feed.issuer.metadata | members)
    check_heard(start(verifier_token=TOKEN), feed, "gone", BOUND_S)
    asked = told(feed)
    assert {SNAPSHOT, STREAM} <= asked.keys()
    assert not any(asked.values())


def test_it_hears_of_a_logout_however_much_others_ask_from_its_address(
    start_server: StartServer, tmp_path: Path
) -> None:
    limits = {"JOTGATE_LIMIT_FEED": "1/hour", "JOTGATE_FEED_CONNECTIONS_PER_ADDRESS": "1"}
    server = start_server("serve", data_dir=tmp_path / "data", env=limits | {"JOTGATE_VERIFIER_TOKENS": TOKEN})
    account = {"email": "ada@example.com", "password": "correct horse battery staple"}
    with (
        server.client() as client,
        Verifier(
            issuer=server.url, audience="api", ca_file=server.ca_file, key_wait_s=30, verifier_token=TOKEN
        ) as verifier,
    ):
        assert client.get("/revocations").status_code == 200
        assert client.get("/revocations").status_code == 429
        assert client.post("/v1/signup", json=account).status_code == 201
        tokens = client.post("/v1/login", json=account | {"delivery": "body"}).json()
        claims = verifier.verify(tokens["access_token"])
        heard = threading.Event()
        verifier.on_revoked(lambda revocation: heard.set() if revocation.covers(claims) else None)
        client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]})
        assert heard.wait(30)
        with pytest.raises(TokenRevoked):
            verifier.verify(tokens["access_token"])


def test_a_token_that_the_issuer_no_longer_has_ends_no_hearing_of_revocations_and_is_told(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("serve", data_dir=tmp_path / "data", env={"JOTGATE_VERIFIER_TOKENS": "w" * 40})
    account = {"email": "ada@example.com", "password": "correct horse battery staple"}
    with (
        server.client() as client,
        Verifier(
            issuer=server.url, audience="api", ca_file=server.ca_file, key_wait_s=30, verifier_token=TOKEN
        ) as verifier,
    ):
        assert client.post("/v1/signup", json=account).status_code == 201
        tokens = client.post("/v1/login", json=account | {"delivery": "body"}).json()
        claims = verifier.verify(tokens["access_token"])
        heard = threading.Event()
        verifier.on_revoked(lambda revocation: heard.set() if revocation.covers(claims) else None)
        client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]})
        assert heard.wait(30)
        told = verifier.status().feed
        assert told is not None
        assert told.token_refused
        assert TOKEN not in str(verifier.status())


def test_a_transport_of_ones_own_sends_what_it_likes(feed: FakeFeed) -> None:
    with pytest.raises(SettingsError, match="verifier_token needs jotgate's own transport"):
        Verifier(
            issuer=feed.issuer.issuer,
            audience="api",
            verifier_token=TOKEN,
            transport=lambda url, timeout_s: Answer(404, b""),
        )


@pytest.mark.parametrize("token", ["", "two words", "one\r\nX-Other: header", "é"])
def test_what_no_header_can_carry_is_a_fault_told_at_once(token: str) -> None:
    with pytest.raises(SettingsError, match="verifier_token must be"):
        Verifier(issuer="https://issuer.example", audience="api", verifier_token=token)
