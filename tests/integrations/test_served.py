"""The integrations behind a real server with real TLS: what a test client cannot show about WebSockets and streams."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, sync_playwright

from jotgate.testing import TestAuth
from tests.conftest import Need
from tests.integrations.answers import REALM
from tests.verifier.servers import WITHIN_S, make_certificates

APP = """
from pathlib import Path
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import HTMLResponse, StreamingResponse
from jotgate import Claims, KeySet, Verifier
from jotgate.integrations.fastapi import Auth

jwks = Path(__file__).with_name("jwks.json").read_bytes()
verifier = Verifier(issuer="https://issuer.test", audience="api", keys=KeySet.from_jwks(jwks))
app, auth = FastAPI(), Auth(verifier)

@app.get("/", response_class=HTMLResponse)
async def page():
    return "<!doctype html><title>A page of the app</title>"

@app.get("/me")
async def me(claims: Claims = Depends(auth.require())):
    return claims.subject

@app.post("/stream", status_code=204)
async def open_stream(claims: Claims = Depends(auth.stream_cookie())):
    pass

@app.get("/stream")
async def stream(claims: Claims = Depends(auth.require(stream=True))):
    async def events():
        yield f"data: {claims.subject}\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")

@app.websocket("/chat")
async def chat(websocket: WebSocket, claims: Claims = Depends(auth.require())):
    await websocket.accept()
    await websocket.send_text(claims.subject)
    await websocket.close()
"""

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@dataclass
class Told:
    status: int
    headers: Message
    body: bytes


@dataclass
class Served:
    port: int
    trust: ssl.SSLContext
    certificate: Path

    def ask(self, method: str, path: str, headers: dict[str, str]) -> Told:
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.trust, timeout=WITHIN_S)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            with connection.getresponse() as answer:
                # After an upgrade what follows is no body.
                return Told(answer.status, answer.headers, b"" if answer.status == 101 else answer.read())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    certificates = make_certificates(folder)
    (folder / "served_app.py").write_text(APP)
    (folder / "jwks.json").write_text(json.dumps(TestAuth().keys.to_jwks()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "granian", "served_app:app", "--interface", "asgi"),
                *("--host", "127.0.0.1", "--port", str(port), "--access-log"),
                *("--ssl-certificate", str(certificates.chain), "--ssl-keyfile", str(certificates.key)),
            ],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_listening(port, process, log)
        yield Served(port, ssl.create_default_context(cafile=str(certificates.ca)), certificates.chain)
        # What the server logged while all this went on, tokens came in headers, cookies and subprotocols.
        assert "eyJ" not in log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(WITHIN_S)


def _wait_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(WITHIN_S * 20):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            probe.settimeout(0.05)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(log.read_text())


def test_a_request_over_tls_is_answered(served: Served) -> None:
    kit = TestAuth()
    assert json.loads(served.ask("GET", "/me", kit.bearer("alice")).body) == "alice"
    refused = served.ask("GET", "/me", {})
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, REALM)


def test_a_websocket_is_upgraded_with_the_subprotocol_selected(served: Served) -> None:
    kit = TestAuth()
    offered = {"Sec-WebSocket-Protocol": f"jotgate.bearer, {kit.token('alice')}"}
    answer = served.ask("GET", "/chat", UPGRADE | offered)
    assert answer.status == 101
    assert answer.headers["Sec-WebSocket-Protocol"] == "jotgate.bearer"
    answer = served.ask("GET", "/chat", UPGRADE | kit.bearer("alice"))
    assert answer.status == 101
    assert answer.headers["Sec-WebSocket-Protocol"] is None


@pytest.mark.parametrize("option", ["expired", "forged"])
def test_a_websocket_with_a_bad_token_is_never_upgraded(served: Served, option: str) -> None:
    token = TestAuth().token("alice", expired=option == "expired", forged=option == "forged")
    answer = served.ask("GET", "/chat", UPGRADE | {"Sec-WebSocket-Protocol": f"jotgate.bearer, {token}"})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith(f'{REALM}, error="invalid_token"')


def test_an_event_stream_opens_by_the_cookie(served: Served) -> None:
    opened = served.ask("POST", "/stream", TestAuth().bearer("alice"))
    assert opened.status == 204
    cookie = str(opened.headers["Set-Cookie"]).split(";")[0]
    browser = {"Accept": "text/event-stream", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"}
    asked = {"Cookie": cookie, **browser}
    assert served.ask("GET", "/stream", asked).body == b"data: alice\n\n"
    assert served.ask("GET", "/me", asked).status == 401


@pytest.fixture(scope="module")
def chromium(served: Served, need: Need) -> Iterator[Browser]:
    """Chromium that takes the server's own certificate, known by its public key, and no other unknown one."""
    public = x509.load_pem_x509_certificate(served.certificate.read_bytes()).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    path = need("chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*flags, f"--ignore-certificate-errors-spki-list={pin}"]
        )
        yield browser
        browser.close()


WEBSOCKET = """([url, token]) => new Promise((resolve) => {
    const socket = new WebSocket(url, ["jotgate.bearer", token]);
    socket.onmessage = (event) => resolve([event.data, socket.protocol]);
    socket.onerror = () => resolve(["refused", ""]);
})"""
POST_STREAM = """([token]) => fetch("/stream", {
    method: "POST", headers: {Authorization: `Bearer ${token}`},
}).then((answer) => answer.status)"""
EVENT_SOURCE = """([url]) => new Promise((resolve) => {
    const source = new EventSource(url, {withCredentials: true});
    source.onmessage = (event) => { source.close(); resolve(event.data); };
    source.onerror = () => { source.close(); resolve("refused"); };
})"""


def test_a_browser_uses_websockets_and_event_sources_with_its_own_means(served: Served, chromium: Browser) -> None:
    kit = TestAuth()
    token = kit.token("alice")
    context = chromium.new_context()
    page = context.new_page()
    origin = f"https://localhost:{served.port}"
    page.goto(origin)
    chat = f"wss://localhost:{served.port}/chat"
    assert page.evaluate(WEBSOCKET, [chat, token]) == ["alice", "jotgate.bearer"]
    assert page.evaluate(WEBSOCKET, [chat, kit.token("alice", expired=True)]) == ["refused", ""]
    assert page.evaluate(EVENT_SOURCE, [f"{origin}/stream"]) == "refused"
    assert page.evaluate(POST_STREAM, [token]) == 204
    assert page.evaluate(EVENT_SOURCE, [f"{origin}/stream"]) == "alice"
    (cookie,) = context.cookies()
    assert cookie["httpOnly"]
    assert cookie["secure"]
    assert page.evaluate("document.cookie") == ""
    # Another host is another site, whose pages the same browser's cookie does not serve.
    page.goto(f"https://127.0.0.1:{served.port}")
    assert page.evaluate(EVENT_SOURCE, [f"{origin}/stream"]) == "refused"
    context.close()
