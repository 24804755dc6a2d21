"""The verifier and jotgate's own server find each other by the issuer's name alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from jotgate import KeySourceError, TokenRevoked, Verifier

PASSWORD = "a long enough password for anybody"


def test_a_token_of_the_running_server_is_verified_over_the_network(
    running_server: Any,  # noqa: ANN401 # tests/conftest.py's RunningServer
    new_email: Callable[[], str],
) -> None:
    account = {"email": new_email(), "password": PASSWORD}
    with running_server.client() as client:
        assert client.post("/v1/signup", json=account).status_code == 201
        token = client.post("/v1/login", json=account | {"delivery": "body"}).json()["access_token"]
    with Verifier(issuer=running_server.url, audience="api", ca_file=running_server.ca_file, key_wait_s=30) as verifier:
        claims = verifier.verify(token)
    assert claims.issuer == running_server.url
    assert claims.has_scopes("account:read")
    assert claims.session_id


def test_the_mounted_server_of_the_demo_is_found_below_its_prefix(
    running_shop: Any,  # noqa: ANN401 # tests/conftest.py's RunningServer
    new_email: Callable[[], str],
) -> None:
    account = {"email": new_email(), "password": PASSWORD}
    with running_shop.client("/auth") as client:
        assert client.post("/v1/signup", json=account).status_code == 201
        token = client.post("/v1/login", json=account | {"delivery": "body"}).json()["access_token"]
    issuer = f"{running_shop.url}/auth"
    with Verifier(issuer=issuer, audience="shop", ca_file=running_shop.ca_file, key_wait_s=30) as verifier:
        assert verifier.verify(token).issuer == issuer


def test_the_servers_private_authority_is_not_the_systems(running_server: Any) -> None:  # noqa: ANN401
    with (
        Verifier(issuer=running_server.url, audience="api", key_wait_s=30) as verifier,
        pytest.raises(KeySourceError, match="not trusted"),
    ):
        verifier.verify("a.b.c")


def test_a_logout_at_the_server_ends_the_session_at_a_verifier_in_another_process(
    running_server: Any,  # noqa: ANN401
    new_email: Callable[[], str],
) -> None:
    account = {"email": new_email(), "password": PASSWORD}
    with (
        running_server.client() as client,
        Verifier(issuer=running_server.url, audience="api", ca_file=running_server.ca_file, key_wait_s=30) as verifier,
    ):
        assert client.post("/v1/signup", json=account).status_code == 201
        tokens = client.post("/v1/login", json=account | {"delivery": "body"}).json()
        claims = verifier.verify(tokens["access_token"])
        heard = threading.Event()
        verifier.on_revoked(lambda revocation: heard.set() if revocation.covers(claims) else None)
        client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]})
        assert heard.wait(30)
        with pytest.raises(TokenRevoked):
            verifier.verify(tokens["access_token"])
