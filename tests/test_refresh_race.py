"""Two hundred callers with one refresh token at the real server: one successor, and what was reuse stays punished."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx2
import pytest

from jotgate.server.rules.refresh import GRACE_S, REMEMBERED_GENERATIONS
from tests.conftest import SAME_ISSUER, RunningServer, StartServer, log_in, sign_up

CALLERS: Final = 200
CONNECTIONS: Final = 20


def refresh(client: httpx2.Client, token: str) -> httpx2.Response:
    return client.post("/v1/refresh", json={"refresh_token": token})


def refresh_at_once(server: RunningServer, token: str) -> list[httpx2.Response]:
    """Present one token 200 times; on each connection, the first of them at the same moment."""
    ready = threading.Barrier(CONNECTIONS)

    def call() -> list[httpx2.Response]:
        with server.client() as client:
            client.get("/.well-known/jwks.json").raise_for_status()  # connected
            ready.wait(60)
            return [refresh(client, token) for _ in range(CALLERS // CONNECTIONS)]

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        calls = [threads.submit(call) for _ in range(CONNECTIONS)]
        return [answer for each in calls for answer in each.result()]


def wait_out_the_grace(client: httpx2.Client, token: str) -> str:
    time.sleep(GRACE_S + 1.5)  # the server's clock is the real one, in whole seconds
    return token


def go_on_until_it_is_forgotten(client: httpx2.Client, token: str) -> str:
    """A generation that the server does not remember any more has no grace, however short ago it was retired."""
    for _ in range(REMEMBERED_GENERATIONS):
        answer = refresh(client, token)
        assert answer.status_code == 200, answer.text
        token = answer.json()["refresh_token"]
    return token


@pytest.mark.parametrize(
    "leave_the_grace", [go_on_until_it_is_forgotten, pytest.param(wait_out_the_grace, marks=pytest.mark.soak)]
)
def test_200_refreshes_of_one_token_have_one_successor_and_reuse_outlives_kill_9(
    start_server: StartServer, tmp_path: Path, leave_the_grace: Callable[[httpx2.Client, str], str]
) -> None:
    data_dir = tmp_path / "data"
    server = start_server("serve", data_dir=data_dir, env=SAME_ISSUER)
    with server.client() as client:
        sign_up(client, "race@kill.test")
        first = log_in(client, "race@kill.test")["refresh_token"]

    began = time.monotonic()
    answers = refresh_at_once(server, first)
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    (successor,) = {answer.json()["refresh_token"] for answer in answers}
    assert successor != first
    # The whole of it must lie within the grace, or the last ones would have been no honest callers any more.
    assert time.monotonic() - began < GRACE_S

    with server.client() as client:
        current = refresh(client, successor).json()["refresh_token"]  # it lives
        confirmed = refresh(client, current).json()["refresh_token"]
        newest = leave_the_grace(client, confirmed)
        refused = refresh(client, first)
        assert (refused.status_code, refused.json()["code"]) == (401, "refresh_reused")
        dead = refresh(client, newest)
        assert (dead.status_code, dead.json()["code"]) == (401, "session_ended")
    server.kill()

    again = start_server("serve", data_dir=data_dir, env=SAME_ISSUER)
    with again.client() as client:
        for token in (first, successor, current, confirmed, newest):
            answer = refresh(client, token)
            assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
        log_in(client, "race@kill.test")
    assert again.stop() == 0
