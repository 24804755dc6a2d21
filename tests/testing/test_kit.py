"""What users' own tests rely on."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from jotgate import (
    BadSignature,
    ClaimRefused,
    KeySet,
    TokenExpired,
    TokenNotYetValid,
    Verifier,
    generate_key,
)
from jotgate.testing import TestAuth, TestClock


@pytest.mark.parametrize("module", ["jotgate.testing", "jotgate.testing.kit"])
def test_the_examples_do_what_they_show(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted
    assert not result.failed


def test_a_token_says_what_was_asked_for() -> None:
    kit = TestAuth(audience="api")
    token = kit.token(
        "alice", scopes=["a", "b"], session="s1", client_id="shop", auth_time=kit.clock.now - 60, tenant={"id": 7}
    )
    claims = kit.verifier.verify(token)
    assert claims.subject == "alice"
    assert claims.scopes == {"a", "b"}
    assert (claims.session_id, claims.client_id, claims.auth_time) == ("s1", "shop", kit.clock.now - 60)
    assert claims["tenant"] == {"id": 7}
    assert kit.verifier.verify(kit.token("alice", methods=["pwd", "mfa"])).methods == ("pwd", "mfa")
    assert kit.verifier.verify(kit.token("alice")).methods == ()
    assert (claims.issued_at, claims.expires_at) == (kit.clock.now, kit.clock.now + 300)


def test_what_must_be_refused_is_refused_for_its_own_reason() -> None:
    kit = TestAuth(audience="api")
    with pytest.raises(TokenExpired):
        kit.verifier.verify(kit.token("alice", expired=True))
    with pytest.raises(TokenNotYetValid):
        kit.verifier.verify(kit.token("alice", early=True))
    with pytest.raises(BadSignature):
        kit.verifier.verify(kit.token("alice", forged=True))
    with pytest.raises(ClaimRefused, match="another audience"):
        kit.verifier.verify(kit.token("alice", audience="other"))
    with pytest.raises(ClaimRefused, match="another issuer"):
        kit.verifier.verify(kit.token("alice", issuer="https://other.test"))


def test_expired_and_early_hold_for_any_leeway_and_life() -> None:
    kit = TestAuth(ttl_s=3600)
    patient = Verifier(issuer=kit.issuer, audience="api", keys=kit.keys, leeway_s=60, clock=kit.clock)
    with pytest.raises(TokenExpired):
        patient.verify(kit.token("alice", expired=True))
    with pytest.raises(TokenNotYetValid):
        patient.verify(kit.token("alice", early=True))


def test_registered_claims_are_not_overridden_by_accident() -> None:
    with pytest.raises(ClaimRefused):
        TestAuth().token("alice", exp=1)
    with pytest.raises(ClaimRefused):
        TestAuth().token("alice", amr=["mfa"])
    with pytest.raises(ClaimRefused):
        TestAuth().token("alice", acr="aal2")


def test_time_stands_still_until_the_test_moves_it() -> None:
    kit = TestAuth()
    assert abs(kit.clock.now - time.time()) < 3600
    token = kit.token("alice")
    kit.clock.advance(304)
    kit.verifier.verify(token)
    kit.clock.advance(1)
    with pytest.raises(TokenExpired):
        kit.verifier.verify(token)
    kit.clock.set(kit.clock.now - 305)
    kit.verifier.verify(token)


def test_two_kits_may_share_a_clock() -> None:
    clock = TestClock(1_800_000_000)
    one, other = TestAuth("one", clock=clock), TestAuth("other", clock=clock)
    clock.advance(5)
    assert one.verifier.verify(one.token("alice")).issued_at == 1_800_000_005
    assert other.verifier.verify(other.token("alice")).issued_at == 1_800_000_005


def test_the_key_is_made_once_for_a_process_and_trusted_by_nobody_else() -> None:
    kit = TestAuth()
    assert TestAuth().keys.to_jwks() == kit.keys.to_jwks()
    production = Verifier(issuer=kit.issuer, audience="api", keys=KeySet([generate_key().public]), clock=kit.clock)
    with pytest.raises(Exception, match="No key"):
        production.verify(kit.token("alice"))


def test_importing_the_kit_changes_no_verifier() -> None:
    """There is no switch to throw: a verifier made before and after the import judges alike, by its own keys."""
    script = (
        "from jotgate import Issuer, TokenError, Verifier, generate_key\n"
        "key, made = generate_key(), generate_key()\n"
        "v = Verifier(issuer='https://issuer.test', audience='api', keys=key.public)\n"
        "from jotgate.testing import TestAuth\n"
        "kit = TestAuth()\n"
        "w = Verifier(issuer='https://issuer.test', audience='api', keys=key.public)\n"
        "for verifier in (v, w):\n"
        "    try:\n"
        "        verifier.verify(kit.token('alice'))\n"
        "    except TokenError as refusal:\n"
        "        print(refusal.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["unknown_key"] * 2


def test_importing_the_kit_needs_no_web_framework() -> None:
    script = "import sys, jotgate.testing; print(sorted({'starlette', 'httpx2', 'fastapi'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def make_app() -> Starlette:
    async def scheme(request: Request) -> JSONResponse:
        return JSONResponse(str(request.url))

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.url))
        await websocket.close()

    return Starlette(routes=[Route("/where", scheme), WebSocketRoute("/socket", socket)])


async def test_both_clients_speak_https_and_websockets_wss() -> None:
    kit = TestAuth()
    assert kit.client(make_app()).get("/where").json() == "https://testserver/where"
    with kit.client(make_app()).websocket_connect("/socket?a=1") as socket:
        assert socket.receive_text() == "wss://testserver/socket?a=1"
    async with kit.async_client(make_app()) as client:
        assert (await client.get("/where")).json() == "https://testserver/where"


def test_a_client_takes_test_clients_own_options() -> None:
    kit = TestAuth()
    client = kit.client(make_app(), base_url="https://shop.test", headers={"X-Test": "1"})
    assert client.get("/where").json() == "https://shop.test/where"
    with client.websocket_connect("/socket") as socket:
        assert socket.receive_text() == "wss://shop.test/socket"


def test_pytest_takes_neither_for_a_test() -> None:
    assert not TestAuth.__test__
    assert not TestClock.__test__
