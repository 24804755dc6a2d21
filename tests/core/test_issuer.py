"""The issuer's access tokens in the RFC 9068 profile, and key generation."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from jotgate import (
    ClaimRefused,
    Issuer,
    Key,
    KeyRefused,
    KeySet,
    Policy,
    SettingsError,
    generate_key,
    verify_jws,
    verify_token,
)
from jotgate.core.claims import REGISTERED, RFC_9068

Json: TypeAlias = Any
NOW = 1_750_000_000
ISSUER = "https://auth.example.com"


def make(key: Key | KeySet, **settings: Json) -> Issuer:
    defaults: dict[str, Json] = {"issuer": ISSUER, "keys": key, "clock": lambda: NOW}
    return Issuer(**(defaults | settings))


def policy(*algorithms: str) -> Policy:
    return Policy(issuer=ISSUER, audience="api", algorithms=algorithms or ("ES256",), required=RFC_9068)


def test_an_issued_token_has_all_that_rfc_9068_demands(keys: dict[str, Key], algorithm: str) -> None:
    issuer = make(keys[algorithm], token_id=lambda: "token-1")
    token = issuer.issue(
        "somebody", audience="api", scopes=["a:read", "b"], session="session", auth_time=NOW - 5, claims={"tenant": "t"}
    )
    assert verify_jws(token, keys[algorithm]).header["typ"] == "at+jwt"
    claims = verify_token(token, keys[algorithm], policy(algorithm), NOW)
    assert claims.to_dict() == {
        "iss": ISSUER,
        "sub": "somebody",
        "aud": "api",
        "exp": NOW + 300,
        "iat": NOW,
        "jti": "token-1",
        "client_id": "web",
        "scope": "a:read b",
        "sid": "session",
        "auth_time": NOW - 5,
        "tenant": "t",
    }


def test_a_token_says_no_more_than_it_was_told(keys: dict[str, Key]) -> None:
    token = make(keys["ES256"]).issue("somebody", audience=["api", "other"])
    claims = verify_token(token, keys["ES256"], policy(), NOW)
    assert set(claims) == set(RFC_9068)
    assert claims.audience == ("api", "other")


def test_a_token_of_the_usual_claims_is_lean(keys: dict[str, Key]) -> None:
    token = make(keys["ES256"], issuer="https://localhost:8443/auth").issue(
        "rYzZ1mNnQk2Yw0m8bq3T7A",
        audience="api",
        scopes=["account:read", "orders:read", "orders:write"],
        session="0aH5m5yQTQu3cB6kA7f7Ig",
        auth_time=NOW,
    )
    assert len(token) <= 700


@pytest.mark.parametrize(
    ("methods", "context"),
    [(["pwd"], "aal1"), (["pwd", "otp", "mfa"], "aal2"), (["pwd", "MFA"], "aal1"), (["hwk", "user", "mfa"], "aal2")],
)
def test_how_somebody_logged_in_is_in_the_token(keys: dict[str, Key], methods: list[str], context: str) -> None:
    token = make(keys["ES256"]).issue("s", audience="api", methods=iter(methods))
    claims = verify_token(token, keys["ES256"], policy(), NOW)
    assert (claims["amr"], claims["acr"]) == (methods, context)
    assert (claims.methods, claims.authentication_context) == (tuple(methods), context)


def test_the_client_is_the_issuers_unless_one_is_named(keys: dict[str, Key]) -> None:
    issuer = make(keys["ES256"], client_id="cli")
    tokens = issuer.issue("s", audience="api"), issuer.issue("s", audience="api", client_id="other")
    assert [verify_token(token, keys["ES256"], policy(), NOW).client_id for token in tokens] == ["cli", "other"]


def test_no_two_tokens_have_one_id(keys: dict[str, Key]) -> None:
    issuer = make(keys["HS256"])
    tokens = [issuer.issue("s", audience="api") for _ in range(100)]
    ids = {verify_token(token, keys["HS256"], policy("HS256"), NOW).token_id for token in tokens}
    assert len(ids) == 100
    assert all(name is not None and len(name) == 22 for name in ids)


def test_without_a_clock_the_time_is_now(keys: dict[str, Key]) -> None:
    import time

    before = int(time.time())
    token = Issuer(issuer=ISSUER, keys=keys["ES256"]).issue("s", audience="api")
    after = int(time.time())
    issued_at = verify_token(token, keys["ES256"], policy(), after).issued_at
    assert issued_at is not None
    assert before <= issued_at <= after


def test_own_claims_never_replace_registered_ones(keys: dict[str, Key]) -> None:
    issuer = make(keys["ES256"])
    for name in REGISTERED:
        with pytest.raises(ClaimRefused) as refused:
            issuer.issue("s", audience="api", claims={name: "x"})
        assert refused.value.claim == name


@pytest.mark.parametrize("scopes", ["a b", ["a b"], [""], ['a"b'], ["a\\b"], ["\u00e9"], ["a\n"], [5], [None]])
def test_scopes_and_methods_that_would_read_as_others_are_refused(keys: dict[str, Key], scopes: Json) -> None:
    with pytest.raises(ClaimRefused) as refused:
        make(keys["ES256"]).issue("s", audience="api", scopes=scopes)
    assert refused.value.claim == "scope"
    with pytest.raises(ClaimRefused) as refused:
        make(keys["ES256"]).issue("s", audience="api", methods=scopes)
    assert refused.value.claim == "amr"


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": None},
        {"subject": 5},
        {"audience": []},
        {"audience": [5]},
        {"session": 5},
        {"auth_time": "x"},
        {"auth_time": -1},
        {"methods": "mfa"},
        {"methods": [5]},
    ],
)
def test_arguments_of_another_type_are_refused(keys: dict[str, Key], wrong: dict[str, Json]) -> None:
    arguments: dict[str, Json] = {"subject": "s", "audience": "api", **wrong}
    with pytest.raises(ClaimRefused):
        make(keys["ES256"]).issue(**arguments)


@pytest.mark.parametrize("subject", [""])
def test_a_token_for_nobody_is_refused(keys: dict[str, Key], subject: str) -> None:
    with pytest.raises(ClaimRefused):
        make(keys["ES256"]).issue(subject, audience="api")


@pytest.mark.parametrize(
    "faulty",
    [
        {"issuer": ""},
        {"issuer": None},
        {"client_id": ""},
        {"ttl_s": 0},
        {"ttl_s": 3601},
        {"ttl_s": 1.5},
        {"ttl_s": True},
    ],
    ids=str,
)
def test_an_issuer_with_a_fault_is_not_made(keys: dict[str, Key], faulty: dict[str, Json]) -> None:
    with pytest.raises(SettingsError) as error:
        make(keys["ES256"], **faulty)
    assert [fault.split()[0] for fault in error.value.faults] == list(faulty)


def test_the_longest_life_is_what_verifiers_take(keys: dict[str, Key]) -> None:
    issuer = make(keys["ES256"], ttl_s=3600)
    assert issuer.ttl_s == 3600
    claims = verify_token(issuer.issue("s", audience="api"), keys["ES256"], policy(), NOW)
    assert claims.expires_at == NOW + 3600


def test_an_issuer_needs_a_key_that_signs(keys: dict[str, Key], public_keys: KeySet) -> None:
    for key in (keys["ES256"].public, public_keys, KeySet()):
        with pytest.raises(KeyRefused):
            make(key)


def test_of_a_set_the_first_key_that_signs_is_used_and_all_are_published(keys: dict[str, Key]) -> None:
    issuer = make(KeySet([keys["RS256"].public, keys["ES256"], keys["Ed25519"]]))
    token = issuer.issue("s", audience="api")
    assert verify_jws(token, issuer.keys).header["kid"] == keys["ES256"].kid
    published = KeySet.from_jwks(issuer.keys.to_jwks())
    assert {key.kid for key in published} == {keys[name].kid for name in ("RS256", "ES256", "Ed25519")}
    assert not any(key.private for key in published)
    assert verify_token(token, published, policy(), NOW)


def test_the_repr_of_an_issuer_tells_no_material(keys: dict[str, Key]) -> None:
    text = repr(make(keys["HS256"]))
    assert ISSUER in text
    assert keys["HS256"].to_private_jwk()["k"] not in text
    assert make(keys["HS256"]).issuer == ISSUER


def test_generated_keys_are_new_and_strong(algorithm: str) -> None:
    first, second = generate_key(algorithm), generate_key(algorithm)
    assert first.kid != second.kid
    assert first.algorithm == algorithm
    assert first.private
    second_jwk = second.to_private_jwk()
    for name, value in first.to_private_jwk().items():
        assert name in ("kty", "crv", "alg", "use", "e") or value != second_jwk[name]
    if algorithm == "RS256":
        assert len(first.to_jwk()["n"]) == 512  # 3072 bits
    assert generate_key().algorithm == "ES256"
