"""Keys, a policy and forged tokens for the tests of the token core. The forger signs whatever it is given."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from jotgate import Key, KeySet, Policy, generate_key
from jotgate.core.algorithms import ALGORITHMS

# One algorithm of each key type: how a token must be formed is the same for all of a type.
NAMES = ("HS256", "RS256", "ES256", "Ed25519", "ML-DSA-44")
EVERY = tuple(name for name, row in ALGORITHMS.items() if not row.verify_only)
NOW = 1_750_000_000
CLAIMS: dict[str, Any] = {
    "iss": "https://auth.example.com",
    "sub": "rYzZ1mNnQk2Yw0m8bq3T7A",
    "aud": "api",
    "exp": NOW + 300,
    "iat": NOW,
    "jti": "3v1mB3TTRk6bF2mCjv7wCg",
    "client_id": "web",
    "scope": "orders:read orders:write",
    "sid": "0aH5m5yQTQu3cB6kA7f7Ig",
}


def segment(raw: bytes) -> str:
    """The standard library's encoding, so that the tests do not lean on the code they test."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forge:
    """Signs any header and payload text with a real key: what it makes is wrong in form or content only."""

    claims = CLAIMS
    now = NOW
    names = EVERY

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self.keys = keys

    def token(
        self,
        algorithm: str = "ES256",
        *,
        header: Mapping[str, Any] | bytes | None = None,
        payload: Mapping[str, Any] | bytes | None = None,
        **claims: object,
    ) -> str:
        """A good token, save for what is given: whole header or payload, or single claims (Ellipsis: leave out)."""
        key = self.keys[algorithm]
        if header is None:
            header = self.header(algorithm)
        if payload is None:
            payload = {name: value for name, value in (CLAIMS | claims).items() if value is not ...}
        head = segment(header if isinstance(header, bytes) else json.dumps(header).encode())
        body = segment(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
        return self.sign(f"{head}.{body}", key)

    def header(self, algorithm: str = "ES256", **members: object) -> dict[str, object]:
        """The good header, with `members` besides (Ellipsis: leave out)."""
        good: dict[str, object] = {"alg": algorithm, "kid": self.keys[algorithm].kid, "typ": "at+jwt"}
        return {name: value for name, value in (good | members).items() if value is not ...}

    @staticmethod
    def sign(text: str, key: Key) -> str:
        return f"{text}.{segment(key.sign(text.encode()))}"

    @staticmethod
    def segment(raw: bytes) -> str:
        return segment(raw)

    @staticmethod
    def policy(*algorithms: str) -> Policy:
        """The policy that the good claims satisfy."""
        return Policy(issuer=CLAIMS["iss"], audience="api", algorithms=algorithms or ("ES256",))


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    """One small good RSA key for all tests: making them is slow."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def keys(rsa_key: rsa.RSAPrivateKey) -> dict[str, Key]:
    """One private key (or secret) for each algorithm."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        # Six algorithms share the RSA key, and so its thumbprint: all but one need another name.
        name: Key.from_pem(pem, name, kid=None if name == "RS256" else f"rsa-{name}")
        if ALGORITHMS[name].key_type == "RSA"
        else generate_key(name)
        for name in EVERY
    }


@pytest.fixture(scope="session")
def public_keys(keys: dict[str, Key]) -> KeySet:
    """What a verifier has: the public halves of all the pairs."""
    return KeySet(key.public for key in keys.values() if not key.symmetric)


@pytest.fixture(scope="session")
def forge(keys: dict[str, Key]) -> Forge:
    return Forge(keys)


@pytest.fixture(params=NAMES)
def algorithm(request: pytest.FixtureRequest) -> str:
    """One algorithm of each key type in turn."""
    name: str = request.param
    return name


@pytest.fixture(params=EVERY)
def every_algorithm(request: pytest.FixtureRequest) -> str:
    """Each algorithm in turn."""
    name: str = request.param
    return name
