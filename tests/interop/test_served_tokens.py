"""Access tokens of the running server, judged by libraries that nobody here wrote; jotgate's own verifier stays out."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tests.conftest import Need, RunningServer, log_in, node_command, sign_up

AUDIENCE = "api"


@pytest.fixture(scope="module")
def metadata(running_server: RunningServer) -> dict[str, Any]:
    with running_server.client() as client:
        found: dict[str, Any] = client.get("/.well-known/oauth-authorization-server").json()
    return found


@pytest.fixture(scope="module")
def token(running_server: RunningServer, new_email: Callable[[], str]) -> str:
    email = new_email()
    with running_server.client() as client:
        sign_up(client, email)
        access_token: str = log_in(client, email)["access_token"]
    return access_token


@pytest.fixture(scope="module")
def tampered(token: str) -> str:
    """The same token with a claim changed and the signature kept."""
    header, payload, signature = token.split(".")
    claims = json.loads(jwt.utils.base64url_decode(payload))
    claims["scope"] = "account:read admin"
    forged = jwt.utils.base64url_encode(json.dumps(claims).encode()).decode()
    return f"{header}.{forged}.{signature}"


def test_pyjwt_accepts_the_servers_token_and_refuses_a_changed_one(
    running_server: RunningServer, metadata: dict[str, Any], token: str, tampered: str
) -> None:
    client = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=running_server.trust())

    def decode(text: str, audience: str = AUDIENCE) -> dict[str, Any]:
        key = client.get_signing_key_from_jwt(text)
        return jwt.decode(
            text,
            key,
            algorithms=["ES256"],
            issuer=metadata["issuer"],
            audience=audience,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
        )

    claims = decode(token)
    assert claims["aud"] == AUDIENCE
    assert claims["scope"] == "account:read"
    with pytest.raises(jwt.InvalidSignatureError):
        decode(tampered)
    with pytest.raises(jwt.InvalidAudienceError):
        decode(token, audience="another-api")


def test_joserfc_accepts_the_servers_token_and_refuses_a_changed_one(
    running_server: RunningServer, metadata: dict[str, Any], token: str, tampered: str
) -> None:
    with running_server.client() as client:
        keys = KeySet.import_key_set(client.get(metadata["jwks_uri"]).json())
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": metadata["issuer"]},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )

    decoded = joserfc_jwt.decode(token, keys, algorithms=["ES256"])
    registry.validate(decoded.claims)
    assert decoded.header["typ"] == "at+jwt"
    with pytest.raises(JoseError):
        joserfc_jwt.decode(tampered, keys, algorithms=["ES256"])


def test_npms_jose_accepts_the_servers_token_and_refuses_a_changed_one(
    running_server: RunningServer,
    metadata: dict[str, Any],
    token: str,
    tampered: str,
    need: Need,
    node_modules: Path,
) -> None:
    node = need("node")
    ipv4first = "--dns-result-order=ipv4first"  # Node 18 tries one address of localhost only, maybe ::1
    question = {
        "jwksUri": metadata["jwks_uri"],
        "issuer": metadata["issuer"],
        "audience": AUDIENCE,
        "tokens": [token, tampered],
    }
    answer = subprocess.run(
        [*node_command(node), ipv4first, "--input-type=module"],
        input=Path(__file__).with_name("verify_with_jose.mjs").read_text(encoding="utf-8"),
        env=os.environ | {"NODE_EXTRA_CA_CERTS": str(running_server.ca_file), "QUESTION": json.dumps(question)},
        cwd=node_modules.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    accepted, refused = json.loads(answer.stdout)
    assert accepted["claims"]["sub"] == json.loads(jwt.utils.base64url_decode(token.split(".")[1]))["sub"]
    assert accepted["header"]["alg"] == "ES256"
    assert refused == {"code": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}
