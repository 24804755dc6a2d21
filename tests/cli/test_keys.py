"""`jotgate keys`: rotated, revoked, brought in and given out while the server runs on the folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jotgate import KeySet, generate_key, verify_jws
from jotgate.core.encoding import encode_segment
from tests.cli.conftest import Jotgate
from tests.conftest import SAME_ISSUER, RunningServer, StartServer, log_in, sign_up

WITHIN_S = 15
EMAIL = "keys@example.com"
CACHE_S = "1"  # keys are published three seconds ahead


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    monkeypatch.setenv("JOTGATE_JWKS_MAX_AGE_S", CACHE_S)
    return start_server("serve", data_dir=tmp_path / "data", env=SAME_ISSUER | {"JOTGATE_JWKS_MAX_AGE_S": CACHE_S})


def published(client: httpx2.Client) -> list[str]:
    return [each["kid"] for each in client.get("/.well-known/jwks.json").json()["keys"]]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rotated(jotgate: Jotgate, *folder: str) -> list[dict[str, Any]]:
    """Rotate as soon as it is allowed."""
    deadline = time.monotonic() + WITHIN_S
    while (ran := jotgate("keys", "rotate", "--json", *folder)).status:
        assert "verifiers may not know them yet: rotate again in " in ran.err
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told: list[dict[str, Any]] = json.loads(ran.out)
    return told


def test_a_rotation_and_a_revocation_reach_the_running_server(jotgate: Jotgate, server: RunningServer) -> None:
    folder = ["--data", str(server.data_dir)]
    with server.client() as client:
        sign_up(client, EMAIL)
        first, *following = published(client)
        events = rotated(jotgate, *folder)
        second = events[1]["kid"]
        assert [(each["event"], each["kid"]) for each in events[:2]] == [
            ("key_retired", first),
            ("key_activated", second),
        ]
        assert second in following
        until(lambda: len(published(client)) == 4)
        tokens = log_in(client, EMAIL)
        authorization = {"authorization": f"Bearer {tokens['access_token']}"}
        assert client.get("/v1/account", headers=authorization).status_code == 200
        shown = jotgate("keys", "revoke", second, *folder)
        assert f"revoked: nothing that it signed is believed any more: {second} (ES256)" in shown.out
        until(lambda: client.get("/v1/account", headers=authorization).status_code == 401)
        assert client.get("/v1/account", headers=authorization).json()["code"] == "unknown_key"
        until(lambda: second not in published(client))
        answer = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 200  # the session goes on, under the next key
        again = jotgate("keys", "revoke", second, *folder)
        assert (again.status, again.out) == (1, "")
        assert "no key" in again.err


def test_revoking_a_key_can_log_out_everybody(jotgate: Jotgate, server: RunningServer) -> None:
    folder = ["--data", str(server.data_dir)]
    with server.client() as client:
        sign_up(client, EMAIL)
        tokens = log_in(client, EMAIL)
        [active, *_] = published(client)
        refused = jotgate("keys", "revoke", active, "--end-sessions", *folder)
        assert (refused.status, refused.err) == (1, "error: This logs out everybody. Say --yes to do it.\n")
        assert jotgate("keys", "revoke", active, "--end-sessions", "--yes", *folder).status == 0
        until(lambda: client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 401)
        # Said once more, or of a key that there is not, it logs out nobody.
        tokens = log_in(client, EMAIL)
        for kid in (active, "nobody's"):
            again = jotgate("keys", "revoke", kid, "--end-sessions", "--yes", *folder)
            assert (again.status, again.err) == (1, f"error: There is no key {kid} that is in use.\n")
        assert client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 200


def test_several_keys_are_revoked_together(jotgate: Jotgate, server: RunningServer) -> None:
    folder = ["--data", str(server.data_dir)]
    with server.client() as client:
        before = published(client)
        revoked = jotgate("keys", "revoke", *before, before[0], "--json", *folder)
        told = [each["kid"] for each in json.loads(revoked.out) if each["event"] == "key_revoked"]
        assert told == before
        until(lambda: len(published(client)) == 3 and not set(published(client)) & set(before))
        sign_up(client, EMAIL)
        log_in(client, EMAIL)


def test_a_mac_key_is_not_revoked_unless_sessions_may_end(jotgate: Jotgate, server: RunningServer) -> None:
    folder = ["--data", str(server.data_dir)]
    told = json.loads(jotgate("keys", "list", "--json", *folder).out)
    [active] = [each["kid"] for each in told if (each["purpose"], each["state"]) == ("refresh", "active")]
    refused = jotgate("keys", "revoke", active, *folder)
    assert refused.status == 1
    assert "say --end-sessions" in refused.err


def test_a_key_is_brought_in_once_and_what_is_weak_public_or_unreadable_is_refused(
    jotgate: Jotgate, server: RunningServer, tmp_path: Path
) -> None:
    folder = ["--data", str(server.data_dir)]
    key = generate_key("ES256")
    files = {
        "pem": key.to_pem(),
        "jwk": json.dumps(key.to_private_jwk()),
        "public": key.public.to_pem(),
        "other": json.dumps(generate_key("Ed25519").to_private_jwk()),
        "nothing": "what is this?",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    dashed = tmp_path / "dashed"
    dashed.write_text(json.dumps(generate_key("ES256", kid="-theirs").to_private_jwk()))
    refusals = {
        ("pem",): "name it with --algorithm",
        ("public", "--algorithm", "ES256"): "A private key is needed",
        ("nothing", "--algorithm", "ES256"): "One PEM block with one key is needed.",
        ("pem", "--algorithm", "Ed25519"): "",
        ("other",): "start the servers with JOTGATE_SIGNING_ALGORITHM=Ed25519 first",
    }
    for (name, *options), reason in refusals.items():
        refused = jotgate("keys", "import", str(tmp_path / name), *options, *folder)
        assert refused.status == 1
        assert reason in refused.err
    missing = jotgate("keys", "import", str(tmp_path / "missing"), *folder)
    assert (missing.status, "cannot be read: No such file" in missing.err) == (2, True)
    assert jotgate("keys", "import", str(tmp_path / "jwk"), *folder).status == 0
    with server.client() as client:
        until(lambda: key.kid in published(client))
    jotgate("keys", "import", str(dashed), *folder)
    assert "-theirs" in jotgate("keys", "revoke", "-theirs", *folder).out
    again = jotgate("keys", "import", str(tmp_path / "pem"), "--algorithm", "ES256", *folder)
    assert "is the access key" in again.err
    told = json.loads(jotgate("keys", "list", "--all", "--json", *folder).out)
    assert {each["state"] for each in told if each["purpose"] == "access"} == {"active", "next", "revoked"}


def test_public_halves_are_given_out_and_nothing_else_is(jotgate: Jotgate, server: RunningServer) -> None:
    folder = ["--data", str(server.data_dir)]
    assert jotgate("keys", "export", *folder).status == 2
    with server.client() as client:
        served = client.get("/.well-known/jwks.json").json()
        sign_up(client, EMAIL)
        token = log_in(client, EMAIL)["access_token"]
    exported = json.loads(jotgate("keys", "export", "--public", *folder).out)
    assert exported == served
    assert json.loads(jotgate("keys", "export", "--public", "--json", *folder).out) == served
    assert jotgate("keys", "export", "--public", "--json", "--pem", *folder).status == 2
    assert verify_jws(token, KeySet.from_jwks(exported)).payload
    [active, following, _] = [each["kid"] for each in served["keys"]]
    pem = jotgate("keys", "export", following, "--public", "--pem", *folder).out
    assert pem.startswith("-----BEGIN PUBLIC KEY-----")
    assert "PRIVATE" not in pem
    assert active != following
    unknown = jotgate("keys", "export", "nobody's", "--public", *folder)
    assert (unknown.status, unknown.err) == (1, "error: There is no published key nobody's.\n")


def test_the_master_key_of_a_folder_is_changed_under_a_running_server(
    jotgate: Jotgate, server: RunningServer, start_server: StartServer
) -> None:
    folder = ["--data", str(server.data_dir)]
    before = (server.data_dir / "master.key").read_text()
    with server.client() as client:
        sign_up(client, EMAIL)
        tokens = log_in(client, EMAIL)
        assert jotgate("keys", "rewrap", *folder).out == "sealed 18 keys anew\n"
        assert (server.data_dir / "master.key").read_text() != before
        [*_, made] = rotated(jotgate, *folder)  # a key that only the new master key opens
        until(lambda: made["kid"] in published(client))
        answer = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 200
    assert jotgate("keys", "rewrap", "--forget-previous", *folder).out == "the previous master key is gone\n"
    assert [path.name for path in server.data_dir.glob("master*")] == ["master.key"]
    assert server.stop() == 0
    with start_server("serve", data_dir=server.data_dir, env=SAME_ISSUER).client() as client:
        assert client.get("/readyz").status_code == 200
    (server.data_dir / "master.key").write_text(before)
    refused = jotgate("keys", "export", "--public", *folder)
    assert (refused.status, "does not open" in refused.err) == (2, True)


def test_a_master_key_from_the_environment_is_changed_by_restarts(
    jotgate: Jotgate, start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (encode_segment(bytes([number]) * 32) for number in (1, 2))
    data, folder = tmp_path / "data", ["--data", str(tmp_path / "data")]
    assert start_server("serve", data_dir=data, env=SAME_ISSUER | {"JOTGATE_MASTER_KEY": old}).stop() == 0
    both = {"JOTGATE_MASTER_KEY": new, "JOTGATE_MASTER_KEY_PREVIOUS": old}
    server = start_server("serve", data_dir=data, env=SAME_ISSUER | both)
    for name, value in both.items():
        monkeypatch.setenv(name, value)
    assert json.loads(jotgate("keys", "rewrap", "--json", *folder).out) == {"rewrapped": 18}
    assert server.stop() == 0
    monkeypatch.delenv("JOTGATE_MASTER_KEY_PREVIOUS")
    assert jotgate("keys", "export", "--public", *folder).status == 0
    monkeypatch.setenv("JOTGATE_MASTER_KEY", old)
    assert jotgate("keys", "export", "--public", *folder).status == 2
