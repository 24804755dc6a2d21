"""Passwords and tokens travel encrypted, save on loopback and behind a trusted proxy; slow bodies are cut off."""

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.http import exchange
from tests.server.http.support import EMAIL, PASSWORD, Api, client_of, code

LOGIN = {"email": EMAIL, "password": PASSWORD, "delivery": "body"}
AWAY = "203.0.113.9"
PROXY = "192.0.2.1"


async def test_clear_text_is_refused_from_elsewhere_and_allowed_on_loopback(api: Api) -> None:
    await api.signup()
    for peer, expected in (
        (AWAY, 403),
        ("127.0.0.1", 200),
        ("::1", 200),
        ("127.8.9.10", 200),
        ("::ffff:127.0.0.1", 200),
    ):
        async with client_of(api.app, "http://localhost:8443", peer) as http:
            answer = await http.post("/v1/login", json=LOGIN)
            assert answer.status_code == expected, peer
    assert code(await client_of(api.app, "http://x", AWAY).post("/v1/login", json=LOGIN)) == (403, "clear_text_refused")


async def test_what_is_public_may_be_read_over_clear_text(api: Api) -> None:
    async with client_of(api.app, "http://localhost:8443", AWAY) as http:
        for path in ("/healthz", "/readyz", "/.well-known/jwks.json", "/openapi.json"):
            assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # naming the proxy as trusted is the operator's word for it
        ({"x-forwarded-for": AWAY, "x-forwarded-proto": "https"}, True),
        ({"x-forwarded-for": AWAY, "x-forwarded-proto": "http"}, False),
        ({"forwarded": f"for={AWAY};proto=https"}, True),
        ({"forwarded": f"for={AWAY};proto=http"}, False),
    ],
)
async def test_a_trusted_proxy_says_whether_its_client_used_tls(
    api: Api, headers: dict[str, str], *, allowed: bool
) -> None:
    await api.signup()
    app = create_app(
        Settings(signup="open", data_dir=api.settings.data_dir, trusted_proxies=("192.0.2.0/24",), hash_workers=1),
        clock=api.clock,
    )
    async with app.lifespan():
        async with client_of(app, "http://localhost:8443", PROXY) as http:
            answer = await http.post("/v1/login", json=LOGIN, headers=headers)
            assert answer.status_code == (200 if allowed else 403)
        async with client_of(app, "http://localhost:8443", AWAY) as http:
            forged = {"x-forwarded-proto": "https", "x-forwarded-for": "127.0.0.1", "forwarded": "proto=https"}
            assert code(await http.post("/v1/login", json=LOGIN, headers=forged)) == (403, "clear_text_refused")


async def _call(app: AuthApp, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if events:
            return events.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(dict(event))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/login",
        "scheme": "https",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent


async def test_a_body_that_never_ends_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_TIMEOUT_S", 0.05)
    sent = await _call(api.app, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert sent[0]["status"] == 408
    assert b"body_timeout" in sent[1]["body"]


async def test_a_body_that_breaks_off_is_refused_with_a_code(api: Api) -> None:
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = await _call(api.app, events)
    assert sent[0]["status"] == 400
    assert b"body_incomplete" in sent[1]["body"]


async def test_an_app_that_cannot_start_is_not_there_yet_and_its_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("not a folder")
    app = create_app(Settings(signup="open", data_dir=path))
    [well_known] = app.well_known_routes()
    async with client_of(app) as http, client_of(well_known.app) as root:
        for answer in (await http.get("/healthz"), await root.get("/.well-known/oauth-authorization-server")):
            assert code(answer) == (503, "unavailable")
            assert "retry-after" in answer.headers
            assert str(path) not in answer.text
        assert "not_started" in caplog.text
        assert str(path) in caplog.text
        path.unlink()
        assert (await http.get("/healthz")).status_code == 200
    await asyncio.to_thread(app.close)
