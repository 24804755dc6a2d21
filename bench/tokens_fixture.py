"""Keys, claims and tokens for `bench.tokens`, made with `cryptography` alone; knows no JWT library, jotgate included.

A token has the claims iss, sub, aud, iat, nbf, exp, jti, sid and scope, and a header with alg, kid and typ. Every
token has its own `jti`, and so its own signature.
"""

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://auth.shop.example"
AUDIENCE = "https://api.shop.example"
TYP = "at+jwt"
REQUIRED = ("iss", "sub", "aud", "iat", "nbf", "exp", "jti")
LEEWAY_S = 5
KID = "bench-2026-11"
ALGORITHMS = ("HS256", "RS256", "ES256", "Ed25519", "ML-DSA-44")

Claims = dict[str, Any]
Signed = tuple[bytes, bytes]
"""What is signed and its signature as the primitive has it: DER for ES256."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One key in the forms that libraries take, and its bare primitive.

    `sign` and `check` do what no JWT library can do without: they take bytes that are ready and give or check the
    primitive's own signature (for ES256 that is DER: turning it into r‖s and back is part of JWS). `check` raises
    where the signature is wrong.
    """

    algorithm: str
    jwk: Mapping[str, str]
    """The private JWK."""
    secret_members: frozenset[str]
    sign: Callable[[bytes], bytes]
    check: Callable[[Signed], None]

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public JWK; for HMAC there is only the secret."""
        hidden = frozenset() if self.algorithm == "HS256" else self.secret_members
        return {name: value for name, value in self.jwk.items() if name not in hidden}

    def token(self, claims: Mapping[str, Any], *, alg: str, typ: str = TYP) -> str:
        """Sign a token whose header names the algorithm `alg`."""
        message = self.message(claims, alg=alg, typ=typ)
        signature = self.sign(message)
        if self.algorithm == "ES256":
            r, s = decode_dss_signature(signature)
            signature = r.to_bytes(32) + s.to_bytes(32)
        return f"{message.decode('ascii')}.{encode(signature)}"

    def signed(self, claims: Mapping[str, Any]) -> Signed:
        """What the bare primitive checks for a token of these claims."""
        message = self.message(claims)
        return message, self.sign(message)

    def message(self, claims: Mapping[str, Any], *, alg: str | None = None, typ: str = TYP) -> bytes:
        """What is signed for a token of these claims."""
        head = as_json({"alg": alg or self.algorithm, "kid": KID, "typ": typ})
        return f"{encode(head)}.{encode(as_json(claims))}".encode("ascii")


def make_claims(**others: object) -> Claims:
    """Claims of a token that is good now; its jti is its own. `others` replace members, None removes one."""
    now = int(time.time())
    claims: Claims = {
        "iss": ISSUER,
        "sub": "Vq3J0c1mZl2kP5x8bTgY7w",
        "aud": AUDIENCE,
        "iat": now,
        "nbf": now,
        "exp": now + 300,
        "jti": encode(secrets.token_bytes(16)),
        "sid": encode(secrets.token_bytes(16)),
        "scope": "account:read orders:read orders:write",
    }
    return {name: value for name, value in (claims | others).items() if value is not None}


def make_keys(algorithm: str) -> Keys:
    """Make a new key. Raises UnsupportedAlgorithm where the installed `cryptography` lacks the algorithm."""
    return _MAKERS[algorithm]()


def untimed(calls: int) -> int:
    """How many of so many calls come first and are not timed."""
    return max(1, calls // 10)


def encode(raw: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def as_json(members: Mapping[str, Any]) -> bytes:
    """The shortest JSON text."""
    return json.dumps(members, separators=(",", ":")).encode("ascii")


def _number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8))


def _keys(
    algorithm: str,
    public: Mapping[str, str],
    private: Mapping[str, str],
    sign: Callable[[bytes], bytes],
    check: Callable[[Signed], None],
) -> Keys:
    jwk = {**public, **private, "alg": algorithm, "use": "sig", "kid": KID}
    return Keys(algorithm, jwk, frozenset(private), sign, check)


def _hs256() -> Keys:
    secret = secrets.token_bytes(32)
    digest, is_same = hmac.digest, hmac.compare_digest

    def sign(message: bytes) -> bytes:
        return digest(secret, message, "sha256")

    def check(signed: Signed) -> None:
        if not is_same(digest(secret, signed[0], "sha256"), signed[1]):
            raise ValueError("wrong signature")

    return _keys("HS256", {"kty": "oct"}, {"k": encode(secret)}, sign, check)


def _rs256() -> Keys:
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.private_numbers()
    pad, hash_ = padding.PKCS1v15(), hashes.SHA256()
    private = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1}
    private["qi"] = numbers.iqmp
    sign, verify = key.sign, key.public_key().verify
    return _keys(
        "RS256",
        {"kty": "RSA", "n": _number(numbers.public_numbers.n), "e": _number(numbers.public_numbers.e)},
        {name: _number(value) for name, value in private.items()},
        lambda message: sign(message, pad, hash_),
        lambda signed: verify(signed[1], signed[0], pad, hash_),
    )


def _es256() -> Keys:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.private_numbers()
    point = numbers.public_numbers
    # Signing is deterministic here too, as in jotgate (RFC 6979), so that the primitive is the same one.
    signs, checks = ec.ECDSA(hashes.SHA256(), deterministic_signing=True), ec.ECDSA(hashes.SHA256())
    sign, verify = key.sign, key.public_key().verify
    return _keys(
        "ES256",
        {"kty": "EC", "crv": "P-256", "x": encode(point.x.to_bytes(32)), "y": encode(point.y.to_bytes(32))},
        {"d": encode(numbers.private_value.to_bytes(32))},
        lambda message: sign(message, signs),
        lambda signed: verify(signed[1], signed[0], checks),
    )


def _ed25519() -> Keys:
    key = ed25519.Ed25519PrivateKey.generate()
    verify = key.public_key().verify
    return _keys(
        "Ed25519",
        {"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().public_bytes_raw())},
        {"d": encode(key.private_bytes_raw())},
        key.sign,
        lambda signed: verify(signed[1], signed[0]),
    )


def _ml_dsa_44() -> Keys:
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 # since cryptography 48

        key = mldsa.MLDSA44PrivateKey.generate()
    except ImportError:
        raise UnsupportedAlgorithm("This cryptography has no ML-DSA.") from None
    verify = key.public_key().verify
    return _keys(
        "ML-DSA-44",
        {"kty": "AKP", "pub": encode(key.public_key().public_bytes_raw())},
        {"priv": encode(key.private_bytes_raw())},
        key.sign,
        lambda signed: verify(signed[1], signed[0]),
    )


_MAKERS: Mapping[str, Callable[[], Keys]] = {
    "HS256": _hs256,
    "RS256": _rs256,
    "ES256": _es256,
    "Ed25519": _ed25519,
    "ML-DSA-44": _ml_dsa_44,
}
