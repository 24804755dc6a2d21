"""PyJWT and joserfc, under the same keys: their tokens are accepted by ours, and ours by theirs.

This is the peers' own use of a key set: keys travel as JWK, and the algorithm is named on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest

from jotgate import Claims, Issuer, Key, KeySet, Policy, TokenError, generate_key, verify_token
from jotgate.core.algorithms import ALGORITHMS

Json: TypeAlias = Any
ISSUER = "https://auth.example.com"
# All but ML-DSA, which neither of the two has.
NAMES = tuple(name for name, row in ALGORITHMS.items() if not row.verify_only and row.key_type != "AKP")


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    return {name: make_key(name, 0) for name in NAMES}


@lru_cache
def rsa_jwk(number: int) -> dict[str, str]:
    """One RSA key for six algorithms: making them is slow."""
    made: Json = joserfc.jwk.RSAKey.generate_key(2048)
    return {**made.as_dict(private=True), "kid": str(number)}


def make_key(name: str, number: int, kid: str | None = None) -> Key:
    if ALGORITHMS[name].key_type == "RSA":
        return Key.from_jwk(rsa_jwk(number), algorithm=name, kid=kid)
    return generate_key(name, kid=kid)


def claims() -> dict[str, Json]:
    now = int(time.time())
    own = {"roles": ["buyer", "größe"], "limits": {"orders": 5, "share": 0.25, "open": None}}
    return {"iss": ISSUER, "sub": "somebody", "aud": ["api"], "exp": now + 300, "iat": now, "nbf": now, **own}


def old_name(name: str) -> str:
    """PyJWT does not know the name of RFC 9864 yet: it says EdDSA, which ours takes where a policy lists it."""
    return "EdDSA" if name == "Ed25519" else name


def sign_with_pyjwt(key: Key, header: dict[str, str]) -> str:
    algorithm = old_name(key.algorithm)
    peer = jwt.PyJWK({**key.to_private_jwk(), "alg": algorithm}, algorithm)
    return jwt.encode(claims(), peer.key, algorithm, headers=header)


def sign_with_joserfc(key: Key, header: dict[str, str]) -> str:
    jwk: Json = key.to_private_jwk()
    header = {"alg": key.algorithm, **header}
    return joserfc.jwt.encode(header, claims(), joserfc.jwk.import_key(jwk), algorithms=[key.algorithm])


def verify_with_pyjwt(token: str, key: Key) -> dict[str, Json]:
    algorithm = key.algorithm
    jwk = key.to_private_jwk() if key.symmetric else key.to_jwk()
    peer = jwt.PyJWK({**jwk, "alg": old_name(algorithm)}, old_name(algorithm))
    reader = jwt.PyJWT()
    if algorithm == "Ed25519":
        reader._jws.register_algorithm("Ed25519", jwt.algorithms.OKPAlgorithm())
    found: dict[str, Json] = reader.decode(token, peer.key, algorithms=[algorithm], audience="api", issuer=ISSUER)
    return found


def verify_with_joserfc(token: str, key: Key) -> dict[str, Json]:
    jwk: Json = key.to_private_jwk() if key.symmetric else key.to_jwk()
    peer = joserfc.jwk.import_key(jwk)
    found = joserfc.jwt.decode(token, peer, algorithms=[key.algorithm])
    registry = joserfc.jwt.JWTClaimsRegistry(iss={"value": ISSUER}, aud={"value": "api"}, exp={"essential": True})
    registry.validate(found.claims)
    return found.claims


def verify_with_ours(token: str, key: Key) -> Claims:
    """As a verifier does who got the public key as a JWK set."""
    algorithm = str(jwt.get_unverified_header(token)["alg"])
    assert algorithm in (key.algorithm, old_name(key.algorithm))
    jwks = {"keys": [(key.to_private_jwk() if key.symmetric else key.to_jwk()) | {"alg": algorithm}]}
    policy = Policy(issuer=ISSUER, audience="api", algorithms=(algorithm,))
    return verify_token(token, KeySet.from_jwks(jwks), policy, int(time.time()))


SIGNERS = {"pyjwt": sign_with_pyjwt, "joserfc": sign_with_joserfc}
VERIFIERS = {"pyjwt": verify_with_pyjwt, "joserfc": verify_with_joserfc}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", SIGNERS.values(), ids=SIGNERS)
def test_tokens_of_the_peer_are_accepted_by_ours(
    keys: dict[str, Key], name: str, sign: Callable[[Key, dict[str, str]], str]
) -> None:
    key = keys[name]
    for header in ({"typ": "at+jwt", "kid": key.kid}, {"typ": "at+jwt"}):
        found = verify_with_ours(sign(key, header), key)
        assert found.subject == "somebody"
        assert found["roles"] == ["buyer", "größe"]
        assert found["limits"] == {"orders": 5, "share": 0.25, "open": None}
    with pytest.raises(TokenError):
        verify_with_ours(sign(key, {"typ": "JWT"}), key)
    with pytest.raises(TokenError):
        verify_with_ours(sign(make_key(name, 1), {"typ": "at+jwt"}), key)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verify", VERIFIERS.values(), ids=VERIFIERS)
def test_our_tokens_are_accepted_by_the_peer(
    keys: dict[str, Key], name: str, verify: Callable[[str, Key], dict[str, Json]]
) -> None:
    issuer = Issuer(issuer=ISSUER, keys=keys[name])
    token = issuer.issue("somebody", audience="api", scopes=["a"], session="s", claims={"roles": ["größe"]})
    found = verify(token, keys[name])
    assert (found["sub"], found["scope"], found["sid"], found["roles"]) == ("somebody", "a", "s", ["größe"])
    stranger = make_key(name, 1, keys[name].kid)
    with pytest.raises((jwt.InvalidSignatureError, joserfc.errors.BadSignatureError)):
        verify(token, stranger)


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_the_peer_are_read_by_ours_and_ours_by_the_peer(name: str) -> None:
    row = ALGORITHMS[name]
    made: Json
    if row.symmetric:
        made = joserfc.jwk.OctKey.generate_key(row.min_secret_bytes * 8)
    elif row.key_type == "RSA":
        made = joserfc.jwk.import_key({member: value for member, value in rsa_jwk(0).items() if member != "kid"})
    elif row.key_type == "EC":
        made = joserfc.jwk.ECKey.generate_key(str(row.curve))
    else:
        made = joserfc.jwk.OKPKey.generate_key("Ed25519")
    key = Key.from_jwk(made.as_dict(private=True), algorithm=name)
    assert key.kid == made.thumbprint()
    jwk: Json = key.to_private_jwk()
    again = joserfc.jwk.import_key(jwk)
    assert again.thumbprint() == key.kid
    if not row.symmetric:
        pem = made.as_pem(private=True)
        assert Key.from_pem(pem, name).to_private_jwk() == key.to_private_jwk()
        assert joserfc.jwk.import_key(key.to_pem(), made.key_type).thumbprint() == key.kid
