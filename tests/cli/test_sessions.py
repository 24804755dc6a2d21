"""`jotgate sessions`: who is logged in, and sessions ended from a terminal while the server runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.conftest import Jotgate
from tests.conftest import PASSWORD, RunningServer, StartServer, log_in, sign_up

NewEmail = Callable[[], str]
WITHIN_S = 15


def until_refused(client: httpx2.Client, tokens: dict[str, Any]) -> None:
    """Ask the running server until it refuses the access token."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        answer = client.get("/v1/account", headers={"authorization": f"Bearer {tokens['access_token']}"})
        if answer.status_code == 401:
            assert answer.json()["code"] == "token_revoked"
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 401


def test_a_session_is_listed_and_revoked(jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail) -> None:
    email, folder = new_email(), ["--data", str(running_server.data_dir)]
    with running_server.client() as client:
        sign_up(client, email)
        kept, ended = log_in(client, email), log_in(client, email)
        authorization = {"authorization": f"Bearer {ended['access_token']}"}
        current = client.get("/v1/sessions", headers=authorization).json()["sessions"]
        [sid] = [each["id"] for each in current if each["current"]]
        told = json.loads(jotgate("sessions", "list", "--account", email, "--json", *folder).out)
        assert {each["id"] for each in told} == {each["id"] for each in current}
        shown = jotgate("sessions", "list", "--account", email, *folder).out
        assert f"{sid}  python-httpx2  127.0.0.1" in shown
        first = jotgate("sessions", "list", "--account", email, "--limit", "1", "--json", *folder)
        assert [each["id"] for each in json.loads(first.out)] == [told[0]["id"]]
        assert first.err == "There may be more: these are the 1 used last. --limit shows others, too.\n"
        assert jotgate("sessions", "revoke", "--session", sid, *folder).out == "revoked 1 session\n"
        until_refused(client, ended)
        assert client.post("/v1/refresh", json={"refresh_token": kept["refresh_token"]}).status_code == 200
        again = jotgate("sessions", "revoke", "--session", sid, *folder)
        assert (again.status, again.err) == (1, "error: there is no live session with this id\n")


def test_an_accounts_sessions_are_revoked(jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail) -> None:
    email, folder = new_email(), ["--data", str(running_server.data_dir)]
    with running_server.client() as client:
        sign_up(client, email)
        sessions = [log_in(client, email) for _ in range(2)]
        told = json.loads(jotgate("sessions", "revoke", "--account", email, "--json", *folder).out)
        assert [each["kind"] for each in told] == ["session", "session"]
        for each in sessions:
            until_refused(client, each)
        assert jotgate("sessions", "revoke", "--account", email, *folder).out == "revoked 0 sessions\n"


@pytest.mark.parametrize("options", [["--client", "web"], ["--all"]])
def test_everybody_is_logged_out_and_can_log_in_again(
    jotgate: Jotgate, start_server: StartServer, tmp_path: Path, options: list[str]
) -> None:
    server = start_server("serve", data_dir=tmp_path / "data")
    folder = ["--data", str(server.data_dir)]
    with server.client() as client:
        sign_up(client, "a@shop.example")
        tokens = log_in(client, "a@shop.example")
        refused = jotgate("sessions", "revoke", *options, *folder)
        assert refused.status == 1
        assert "Say --yes to do it." in refused.err
        assert client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 200
        done = jotgate("sessions", "revoke", *options, "--yes", *folder)
        assert (done.status, done.err) == (0, "")
        until_refused(client, tokens)
        later = log_in(client, "a@shop.example")
        assert client.post("/v1/refresh", json={"refresh_token": later["refresh_token"]}).status_code == 200


def test_nobody_is_told_as_such(jotgate: Jotgate, running_server: RunningServer) -> None:
    folder = ["--data", str(running_server.data_dir)]
    for command in (["list", "--account", "nobody@shop.example"], ["revoke", "--account", "nobody@shop.example"]):
        ran = jotgate("sessions", *command, *folder)
        assert (ran.status, ran.err) == (1, "error: there is no account with the address nobody@shop.example\n")


@pytest.mark.parametrize("options", [[], ["--all", "--client", "web"], ["--session", "a", "--account", "b@c.example"]])
def test_exactly_one_thing_is_named(jotgate: Jotgate, running_server: RunningServer, options: list[str]) -> None:
    ran = jotgate("sessions", "revoke", *options, "--data", str(running_server.data_dir))
    assert ran.status == 2
    assert "exactly one of" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("sessions", "revoke", "--session"),
        ("sessions", "revoke", "--client"),
        ("sessions", "revoke", "--account"),
        ("sessions", "list", "--account"),
        ("accounts", "list", "--after"),
    ],
)
def test_what_is_no_text_is_refused_in_one_sentence(jotgate: Jotgate, tmp_path: Path, words: tuple[str, ...]) -> None:
    data = str(tmp_path / "data")
    assert jotgate("accounts", "add", "a@shop.example", "--data", data, stdin=PASSWORD.encode()).status == 0
    yes = ("--yes",) if words[1] == "revoke" else ()
    ran = jotgate(*words, "\udcff@shop.example", *yes, "--data", data)  # a byte that is no UTF-8, as Python takes it
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
