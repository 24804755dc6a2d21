"""What is fuzzed: each target takes bytes, and returns or raises FalseAccept; anything else that it raises is a bug.

The same targets serve seeded mutants, Hypothesis and atheris. A target knows which errors its function may raise, and,
for signed texts, that what was accepted is exactly what was signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from jotgate import Key, KeyRefused, KeySet, MalformedToken, Policy, TokenError, verify_jws, verify_token
from jotgate.core.bearer import parse_authorization
from jotgate.core.jwk import MAX_KID_CHARS
from tests.fuzz.fixed_keys import KEYS
from tests.fuzz.mutation import AUDIENCE, ISSUER, NOW, segment

Json: TypeAlias = Any
ALGORITHM = "HS256"  # the cheapest signature: what is fuzzed is everything around it
KEY = KEYS[ALGORITHM]
LEEWAY_S = 5


class Own(msgspec.Struct):
    """A user's own claims, for the target that reads them."""

    sub: str
    seats: int = 1
    tags: list[str] = []
    limits: dict[str, float] = {}


def policy(algorithm: str = ALGORITHM, claims_type: type[msgspec.Struct] | None = None) -> Policy:
    return Policy(issuer=ISSUER, audience=AUDIENCE, algorithms=(algorithm,), claims_type=claims_type)


class FalseAccept(AssertionError):
    """Something was taken that must not be."""


def demand(good: object, what: str) -> None:
    if not good:
        raise FalseAccept(what)


def _no_repeats(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    demand(len({name for name, _ in pairs}) == len(pairs), "a member repeats")
    return dict(pairs)


def _no_constant(name: str) -> Json:
    raise FalseAccept(f"{name} is no JSON")


def _json(raw: bytes) -> dict[str, Json]:
    """The standard library's own reading, which must find one strict JSON object in everything that is accepted."""
    text = raw.decode("utf-8")
    value = json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    demand(type(value) is dict, "not an object")
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    members: dict[str, Json] = value
    return members


def check_jws(token: str | bytes, key: Key) -> bool:
    """Accepts only what `key` signs to exactly this text (ECDSA apart: there (r, n - s) is as good a signature)."""
    try:
        jws = verify_jws(token, key)
    except TokenError:
        return False
    text = token if isinstance(token, str) else token.decode("ascii")
    signed, _, signature = text.rpartition(".")
    if key.algorithm in ORDERS:
        order, half = ORDERS[key.algorithm]
        made = key.sign(signed.encode())
        twin = made[:half] + (order - int.from_bytes(made[half:])).to_bytes(half)
        demand(signature in (segment(made), segment(twin)), "not signed by the key")
    elif key.algorithm.startswith(("PS", "ML-DSA")):  # no two signatures of one text are the same
        demand(_primitive_takes(key, _decoded(signature), signed.encode()), "not signed by the key")
    else:
        demand(signature == segment(key.sign(signed.encode())), "not signed by the key")
    head, _, body = signed.partition(".")
    demand(body == segment(jws.payload), "the payload is not what was signed")
    header = _json(_decoded(head))
    demand(header == jws.header, "the header is not what was signed")
    demand(header["alg"] == key.algorithm, "another algorithm")
    demand(header.get("kid", key.kid) == key.kid, "another key")
    demand(not {"crit", "b64"} & set(header), "an extension")
    return True


ORDERS = {
    "ES256": (0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 32),
    "ES384": (
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        48,
    ),
    "ES512": (2**521 - 2**260 + 0xA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409, 66),
}
"""The order of each curve's group (SP 800-186 §3.2.1), and the length of half a signature (RFC 7518 §3.4)."""
_HASHES = {"PS256": hashes.SHA256(), "PS384": hashes.SHA384(), "PS512": hashes.SHA512()}


def _primitive_takes(key: Key, signature: bytes, message: bytes) -> bool:
    """Asks the primitive directly: PSS with a salt as long as the hash (RFC 7518 §3.5), ML-DSA without a context."""
    public = key.public._public
    try:
        if isinstance(public, RSAPublicKey):
            hash_ = _HASHES[key.algorithm]
            public.verify(signature, message, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hash_)
        else:
            public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    """Canonical base64url only: every bit of the text comes from the value."""
    raw = msgspec.json.decode(json.dumps(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)), type=bytes)
    demand(segment(raw) == text, "not canonical base64url")
    return raw


def check_token(token: str | bytes, key: Key, now: int = NOW, claims_type: type[msgspec.Struct] | None = None) -> bool:
    """Accepts only what `check_jws` accepts and whose claims, read by the standard library, meet every demand."""
    try:
        claims = verify_token(token, key, policy(key.algorithm, claims_type), now)
    except TokenError:
        return False
    demand(check_jws(token, key), "a token that is no JWS")
    head, body, _ = (token if isinstance(token, str) else token.decode("ascii")).split(".")
    header, members = _json(_decoded(head)), _json(_decoded(body))
    demand(claims.to_dict() == members, "other claims than were signed")
    demand(header["typ"].lower() in ("at+jwt", "application/at+jwt"), "typ")
    demand(type(members["iss"]) is str and members["iss"] == ISSUER, "iss")
    audience = members["aud"]
    demand(audience == AUDIENCE or (type(audience) is list and AUDIENCE in audience), "aud")
    for name in ("sub", "jti", "client_id", "scope", "sid", "acr"):
        demand(type(members.get(name, "")) is str, name)
    methods = members.get("amr", [])
    demand(type(methods) is list and all(type(method) is str for method in methods), "amr")
    demand(members["sub"], "sub")
    for name in ("exp", "iat", "nbf", "auth_time"):
        value = members.get(name, NOW)
        demand(type(value) in (int, float) and 0 <= value < 2**53, name)
    demand(now < members["exp"] + LEEWAY_S, "exp")
    demand(members.get("nbf", now) <= now + LEEWAY_S and members["iat"] <= now + LEEWAY_S, "nbf, iat")
    demand(int(members["exp"]) - members["iat"] <= 3600, "lifetime")
    if claims_type is not None:
        demand(type(claims.custom) is claims_type, "claims_type")
    return True


def signed_text(header: bytes, payload: bytes, key: Key = KEY) -> str:
    text = f"{segment(header)}.{segment(payload)}"
    return f"{text}.{segment(key.sign(text.encode()))}"


HEADER = json.dumps({"alg": ALGORITHM, "kid": KEY.kid, "typ": "at+jwt"}).encode()


def jws(data: bytes) -> None:
    """Any bytes as a token."""
    check_jws(data, KEY)
    check_jws(data.decode("latin-1"), KEY)


def signature(data: bytes) -> None:
    """The first byte chooses an algorithm, the rest is the signature of a token that is good otherwise."""
    key = list(KEYS.values())[data[0] % len(KEYS)] if data else KEY
    header = json.dumps({"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}).encode()
    check_jws(f"{segment(header)}.{segment(b'{}')}.{segment(data[1:])}", key)


def header(data: bytes) -> None:
    """Any bytes as the header of a correctly signed JWS."""
    check_jws(signed_text(data, b"{}"), KEY)


def payload(data: bytes) -> None:
    """Any bytes as the payload of a correctly signed token."""
    check_token(signed_text(HEADER, data), KEY)


def claims(data: bytes) -> None:
    """The same, read into a user's own type."""
    check_token(signed_text(HEADER, data), KEY, claims_type=Own)


def jwk(data: bytes) -> Key | None:
    """Any bytes as a JWK: a key that is read has one algorithm, and what it writes is read as the same key."""
    try:
        key = Key.from_jwk(data)
    except KeyRefused:
        return None
    demand(key.kid and len(key.kid) <= 256, "kid")
    if key.private:
        demand(Key.from_jwk(key.to_private_jwk()).to_private_jwk() == key.to_private_jwk(), "another key (private)")
    if not key.symmetric:
        demand(Key.from_jwk(key.to_jwk()).to_jwk() == key.public.to_jwk(), "another key")
        demand("d" not in key.to_jwk(), "a private member in a public key")
    return key


def jwks(data: bytes) -> None:
    """Any bytes as a JWK set: one kind of key, each `kid` once, and every entry taken or named as skipped.

    That goes for the entries that are skipped, too.
    """
    try:
        keys = KeySet.from_jwks(data)
    except KeyRefused:
        return
    entries = _json(data)["keys"]
    demand(len(keys) + len(keys.skipped) == len(entries), "an entry is lost")
    demand(len({key.symmetric for key in keys}) <= 1, "secrets among public keys")
    demand(len({key.kid for key in keys}) == len(keys), "a kid repeats")
    objects = [entry for entry in entries if type(entry) is dict]
    kids = [entry["kid"] for entry in objects if type(entry.get("kid")) is str and len(entry["kid"]) <= MAX_KID_CHARS]
    demand(len(set(kids)) == len(kids), "a kid repeats in what is skipped")
    types = {entry["kty"] for entry in objects if entry.get("kty") in ("oct", "RSA", "EC", "OKP", "AKP")}
    demand("oct" not in types or len(types) == 1, "secrets among public keys in what is skipped")


def pem(data: bytes) -> None:
    """Any bytes as a PEM key, for each type of key."""
    for algorithm in (
        "RS256",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "Ed25519",
        *(name for name in KEYS if "DSA" in name),
    ):
        try:
            key = Key.from_pem(data, algorithm)
        except KeyRefused:
            continue
        demand(key.algorithm == algorithm, "another algorithm")
        demand(Key.from_pem(key.to_pem(), algorithm).kid == key.kid, "another key")


def bearer(data: bytes) -> None:
    """Any bytes as an Authorization header: no other scheme's value and nothing but one token comes out."""
    for value in (data, data.decode("latin-1"), data.decode("utf-8", "replace")):
        try:
            token = parse_authorization(value)
        except MalformedToken:
            continue
        if token is not None:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            demand(text.strip(" \t")[:7].lower() == "bearer ", "another scheme")
            demand(text.strip(" \t").endswith(f" {token}"), "not the header's token")
            demand(token.isascii() and token.isprintable() and " " not in token and "," not in token, "not one token")


TARGETS: Mapping[str, Callable[[bytes], object]] = {
    target.__name__: target for target in (jws, signature, header, payload, claims, jwk, jwks, pem, bearer)
}
