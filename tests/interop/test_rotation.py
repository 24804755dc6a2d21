"""Clients that nobody here wrote follow three rotations of a running server, with their default caches.

The server is the real app behind real TLS; its clock is moved by the minute, and so are the clients'. A key is
published for fifteen minutes before it signs: not one token fails, and no client asks more often than it wants.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server

from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.tls import ensure_local_certificate
from tests.conftest import Need, free_port, node_command

WITHIN_S = 30.0
STEP_S = 60
ROTATION_S = 3_600
ROTATIONS = 3
JWKS_PATH = "/.well-known/jwks.json"


@dataclass
class Rotating:
    """A server whose clock is moved, and what was asked of it."""

    app: AuthApp
    url: str
    ca_file: Path
    now: int = 1_795_000_000
    asked_at: list[int] = field(default_factory=list)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "http" and scope["path"] == JWKS_PATH:
            self.asked_at.append(self.now)
        await self.app(scope, receive, send)

    def go_on(self) -> str:
        """Let a minute pass, and have a token signed by the key of then."""
        self.now += STEP_S
        ring = self.app.start().keys
        deadline = time.monotonic() + WITHIN_S
        while ring.is_due:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return ring.issuer.issue("somebody", audience="api")

    @property
    def signing(self) -> str:
        [key] = self.app.start().issuer.keys
        return key.kid


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Rotating]:
    certificate = ensure_local_certificate(tmp_path / "tls", int(time.time()))
    port = free_port()
    url = f"https://localhost:{port}"
    settings = Settings(data_dir=tmp_path / "data", issuer=url, key_rotation_s=ROTATION_S)
    rotating = Rotating(None, url, tmp_path / "tls" / "ca.pem")  # type: ignore[arg-type] # its clock comes first
    rotating.app = create_app(settings, clock=lambda: rotating.now)
    rotating.app.start()
    granian = Server(
        rotating,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        ssl_cert=certificate.cert,
        ssl_key=certificate.key,
        log_enabled=False,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(granian.serve(),))
    thread.start()
    until_listening(port)
    yield rotating
    loop.call_soon_threadsafe(granian.stop)
    thread.join(WITHIN_S)
    loop.close()
    rotating.app.close()


def until_listening(port: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def follow(server: Rotating, verify: Callable[[str], object]) -> None:
    """Verify a token each minute until there were three rotations, and see each of them."""
    seen = [server.signing]
    for _ in range(ROTATIONS * ROTATION_S // STEP_S + 1):
        verify(server.go_on())
        if server.signing != seen[-1]:
            seen.append(server.signing)
    assert len(seen) == ROTATIONS + 1


def asked_apart_s(server: Rotating) -> int:
    """The shortest time between two fetches of the key set."""
    return min(later - earlier for earlier, later in itertools.pairwise(server.asked_at))


def test_pyjwts_client_follows(server: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    # PyJWT's caches go by a clock that cannot be handed to them: theirs alone is moved.
    clock = SimpleNamespace(monotonic=lambda: float(server.now))
    for module in ("jwks_client", "jwk_set_cache", "api_jwk"):
        monkeypatch.setattr(f"jwt.{module}.time", clock)
    trust = ssl.create_default_context(cafile=server.ca_file)
    client = jwt.PyJWKClient(server.url + JWKS_PATH, ssl_context=trust)

    def verify(token: str) -> None:
        key = client.get_signing_key_from_jwt(token)
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}  # PyJWT has no clock to set
        assert jwt.decode(token, key, algorithms=["ES256"], audience="api", options=options)["sub"] == "somebody"

    follow(server, verify)
    assert asked_apart_s(server) >= 300  # as long as its cache lives: not once did a token make it ask


def test_npms_jose_follows(server: Rotating, need: Need, node_modules: Path) -> None:
    question = {"jwksUri": server.url + JWKS_PATH, "issuer": server.url, "audience": "api"}
    script = Path(__file__).with_name("follow_with_jose.mjs").read_text(encoding="utf-8")
    with subprocess.Popen(
        [*node_command(need("node")), "--dns-result-order=ipv4first", "--input-type=module", "--eval", script],
        env=os.environ | {"NODE_EXTRA_CA_CERTS": str(server.ca_file), "QUESTION": json.dumps(question)},
        cwd=node_modules.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        stdin, stdout = node.stdin, node.stdout

        def verify(token: str) -> None:
            stdin.write(json.dumps({"now": server.now, "token": token}) + "\n")
            stdin.flush()
            told = json.loads(stdout.readline())
            assert told.get("sub") == "somebody", told

        follow(server, verify)
        stdin.close()
        assert node.wait(WITHIN_S) == 0
    assert asked_apart_s(server) >= 600
