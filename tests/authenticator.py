"""An authenticator in software: makes passkeys and answers for them, with the JSON that browsers send.

It takes the options as a browser's script gets them, and does what browser and authenticator do between them. What it
says of its user (``present``, ``verified``), of its backup and of its counter can be set at any time.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

ES256 = -7
ED25519 = -8
RS256 = -257

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
Json: TypeAlias = dict[str, Any]


def encode(raw: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "==")


class NoPasskey(Exception):
    """What a browser calls NotAllowedError or InvalidStateError: no credential is made, or none is there to answer."""


class Held(NamedTuple):
    """A passkey in the authenticator."""

    rp_id: str
    user_handle: bytes
    key: PrivateKey


class Authenticator:
    """Holds the private keys of one person.

    Args:
        algorithm: the COSE number of the only one that it can.
        counts: whether its counter goes up; a synced one's stays at 0.
        self_attests: whether it signs what it makes, as some do unasked.
    """

    def __init__(
        self, algorithm: int = ES256, *, backed_up: bool = False, counts: bool = True, self_attests: bool = False
    ) -> None:
        self.algorithm = algorithm
        self.present = True
        self.verified = True
        self.backed_up = backed_up
        self.counts = counts
        self.count = 0
        self.self_attests = self_attests
        self.passkeys: dict[bytes, Held] = {}

    def create(self, options: Mapping[str, Any], origin: str, /, **client_data: object) -> Json:
        """``navigator.credentials.create()``, then ``toJSON()``; `client_data` has other members for it."""
        if self.algorithm not in [each["alg"] for each in options["pubKeyCredParams"]]:
            raise NoPasskey("not one of the algorithms that are asked for")
        if any(decode(each["id"]) in self.passkeys for each in options.get("excludeCredentials", ())):
            raise NoPasskey("there is one already")
        id_, key = secrets.token_bytes(32), make_key(self.algorithm)
        rp_id = options["rp"]["id"]
        self.passkeys[id_] = Held(rp_id, decode(options["user"]["id"]), key)
        data = self._data(rp_id, attested=bytes(16) + len(id_).to_bytes(2) + id_ + cbor2.dumps(cose_key(key)))
        told = _client_data("webauthn.create", options, origin, client_data)
        statement = {"alg": self.algorithm, "sig": sign(key, data + sha256(told).digest())} if self.self_attests else {}
        attestation = {"fmt": "packed" if self.self_attests else "none", "attStmt": statement, "authData": data}
        return {
            "id": encode(id_),
            "rawId": encode(id_),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encode(told),
                "attestationObject": encode(cbor2.dumps(attestation)),
                "authenticatorData": encode(data),
                "publicKeyAlgorithm": self.algorithm,
                "transports": ["internal", "hybrid"],
            },
        }

    def get(self, options: Mapping[str, Any], origin: str, /, **client_data: object) -> Json:
        """``navigator.credentials.get()``, then ``toJSON()``; `client_data` has other members for it."""
        allowed = [decode(each["id"]) for each in options.get("allowCredentials", ())]
        for id_, held in self.passkeys.items():
            if held.rp_id == options["rpId"] and (not allowed or id_ in allowed):
                break
        else:
            raise NoPasskey("none for this")
        data = self._data(held.rp_id)
        told = _client_data("webauthn.get", options, origin, client_data)
        return {
            "id": encode(id_),
            "rawId": encode(id_),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": encode(told),
                "authenticatorData": encode(data),
                "signature": encode(sign(held.key, data + sha256(told).digest())),
                "userHandle": encode(held.user_handle),
            },
        }

    def _data(self, rp_id: str, *, attested: bytes = b"") -> bytes:
        self.count += self.counts
        flags = self.present | self.verified << 2 | self.backed_up * 0b11000 | bool(attested) << 6
        return sha256(rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4) + attested


def make_key(algorithm: int) -> PrivateKey:
    if algorithm == ES256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def cose_key(key: PrivateKey) -> dict[int, int | bytes]:
    """The public half as COSE writes it (RFC 9053, RFC 8230)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        return {1: 2, 3: ES256, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {1: 1, 3: ED25519, -1: 6, -2: key.public_key().public_bytes_raw()}
    numbers = key.public_key().public_numbers()
    return {1: 3, 3: RS256, -1: _shortest(numbers.n), -2: _shortest(numbers.e)}


def sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, padding.PKCS1v15(), SHA256())


def _shortest(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _client_data(kind: str, options: Mapping[str, Any], origin: str, other: Mapping[str, object]) -> bytes:
    members = {"type": kind, "challenge": options["challenge"], "origin": origin, "crossOrigin": False}
    return json.dumps({**members, **other}, separators=(",", ":")).encode()
