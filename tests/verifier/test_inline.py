"""`freshness="inline"`: keys and revocations without any thread, from a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from jotgate import KeySourceError, TokenRevoked, Verifier
from tests.conftest import RunningServer, free_port, log_in, sign_up

WITHIN_S = 15.0


def inline(server: RunningServer, **options: object) -> Verifier:
    given: dict[str, object] = {"issuer": server.url, "audience": "api", "ca_file": server.ca_file}
    return Verifier(**(given | {"freshness": "inline"} | options))  # type: ignore[arg-type] # names that each test knows


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("jotgate")}


def until_refused(verifier: Verifier, token: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            verifier.verify(token)
        except TokenRevoked:
            return
        time.sleep(0.02)
    raise AssertionError("the revoked token was never refused")


def test_a_logout_is_heard_at_the_next_look_without_a_thread(
    running_server: RunningServer, new_email: Callable[[], str]
) -> None:
    verifier, email = inline(running_server), new_email()
    with running_server.client() as client:
        sign_up(client, email)
        tokens = log_in(client, email)
        before = threads()
        assert verifier.verify(tokens["access_token"]).subject
        client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]})
        until_refused(verifier, tokens["access_token"])
        assert threads() == before
        feed = verifier.status().feed
        assert feed is not None
        assert feed.mode == "inline"


async def test_in_an_event_loop_others_go_on_while_it_fetches(
    running_server: RunningServer, new_email: Callable[[], str]
) -> None:
    email = new_email()

    def prepare() -> str:
        with running_server.client() as client:
            sign_up(client, email)
            token: str = log_in(client, email)["access_token"]
            return token

    token = await asyncio.to_thread(prepare)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.ensure_future(turn())
    verifier = inline(running_server)
    await verifier.await_ready(WITHIN_S)
    assert (await verifier.averify(token)).subject
    assert turns > 10
    turning.cancel()


async def test_verify_in_an_event_loop_fetches_nothing(running_server: RunningServer) -> None:
    verifier = inline(running_server)
    with pytest.raises(KeySourceError):
        verifier.verify("a.b.c")
    assert verifier.status().fetched_at is None


def test_an_issuer_that_is_away_is_told_in_time(running_server: RunningServer) -> None:
    verifier = inline(running_server, issuer=f"https://localhost:{free_port()}")
    with pytest.raises(KeySourceError):
        verifier.wait_ready(0.3)
    with pytest.raises(KeySourceError):
        verifier.verify("a.b.c")
