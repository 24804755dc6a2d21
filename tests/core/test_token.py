"""Tokens as a whole: what is issued is accepted, and nothing else is."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate import (
    ClaimRefused,
    Key,
    KeyRefused,
    KeySet,
    Policy,
    TokenError,
    generate_key,
    issue_token,
    sign_jws,
    verify_jws,
    verify_token,
)
from jotgate.core.encoding import encode_segment
from jotgate.core.jws import MAX_TOKEN_BYTES
from jotgate.core.lint import LintRules
from jotgate.core.sensitive import find_sensitive

Json: TypeAlias = Any
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NOW = 1_750_000_000
CLAIMS: dict[str, Json] = {
    "iss": "https://auth.example.com",
    "sub": "somebody",
    "aud": "api",
    "exp": NOW + 300,
    "iat": NOW,
    "jti": "3v1mB3TTRk6bF2mCjv7wCg",
}
# Keys at module level for the properties: Hypothesis wants no fixtures.
ED25519 = generate_key("Ed25519")
HS256 = generate_key("HS256")


def policy(*algorithms: str) -> Policy:
    return Policy(issuer=CLAIMS["iss"], audience="api", algorithms=algorithms)


def test_what_is_issued_is_accepted(keys: dict[str, Key], algorithm: str) -> None:
    token = issue_token(CLAIMS, keys[algorithm])
    assert verify_token(token, keys[algorithm], policy(algorithm), NOW).to_dict() == CLAIMS
    assert verify_jws(token, keys[algorithm]).header == {
        "alg": algorithm,
        "kid": keys[algorithm].kid,
        "typ": "at+jwt",
    }


NAMES = st.text(min_size=1, max_size=8).filter(
    lambda name: (
        name not in CLAIMS
        and name not in ("nbf", "auth_time", "sid", "client_id", "scope")
        and not any(find_sensitive({name: None}, (), ()))  # Hypothesis knows to try "IBAN": it reads the source
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_own_claims_come_back_as_they_were(own: dict[str, Json]) -> None:
    claims = CLAIMS | own
    assert verify_token(issue_token(claims, ED25519), ED25519, policy("Ed25519"), NOW).to_dict() == claims


GOOD = issue_token(CLAIMS, HS256)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200)
    | st.text(alphabet=ALPHABET.decode() + ".", max_size=200)
    | st.builds(
        lambda position, byte: GOOD[:position].encode() + byte + GOOD[position + 1 :].encode(),
        st.integers(0, len(GOOD) - 1),
        st.binary(max_size=2),
    ).filter(lambda raw: raw != GOOD.encode())
)
def test_anything_but_the_token_raises_token_error(raw: str | bytes) -> None:
    with pytest.raises(TokenError):
        verify_token(raw, HS256, policy("HS256"), NOW)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_header_and_payload_under_a_good_signature_raise_token_error(header: bytes, payload: bytes) -> None:
    text = f"{encode_segment(header)}.{encode_segment(payload)}"
    token = f"{text}.{encode_segment(HS256.sign(text.encode()))}"
    with pytest.raises(TokenError):
        verify_token(token, HS256, policy("HS256"), NOW)


def check_every_substitution(key: Key, algorithm: str, substitutes: bytes, step: int = 1) -> int:
    token = issue_token(CLAIMS, key).encode()
    demanded = policy(algorithm)
    key = key if key.symmetric else key.public
    verify_token(token, key, demanded, NOW)
    changed = bytearray(token)
    count = 0
    for position in range(0, len(token), step):
        for byte in substitutes:
            if byte == token[position]:
                continue
            changed[position] = byte
            count += 1
            try:
                verify_token(bytes(changed), key, demanded, NOW)
            except TokenError:
                continue
            raise AssertionError(f"taken with byte {byte} at position {position}")
        changed[position] = token[position]
    return count


def test_every_single_byte_substitution_of_an_hs256_token_is_refused(keys: dict[str, Key]) -> None:
    assert check_every_substitution(keys["HS256"], "HS256", bytes(range(256))) > 50_000


def test_every_single_byte_substitution_of_an_es256_token_is_refused(keys: dict[str, Key]) -> None:
    assert check_every_substitution(keys["ES256"], "ES256", bytes(range(256))) > 50_000


def test_single_character_substitutions_of_all_tokens_are_refused(keys: dict[str, Key], every_algorithm: str) -> None:
    step = 29 if every_algorithm.startswith("ML-DSA") else 3
    assert check_every_substitution(keys[every_algorithm], every_algorithm, ALPHABET[::9] + b".=\0", step) > 1_000


@pytest.mark.soak
def test_every_single_byte_substitution_of_any_token_is_refused(keys: dict[str, Key], every_algorithm: str) -> None:
    assert check_every_substitution(keys[every_algorithm], every_algorithm, bytes(range(256))) > 50_000


def test_every_cut_and_every_doubling_of_a_token_is_refused(keys: dict[str, Key], algorithm: str) -> None:
    token = issue_token(CLAIMS, keys[algorithm])
    for position in range(len(token)):
        for wrong in (token[:position], token[position + 1 :], token[:position] + token[position] + token[position:]):
            with pytest.raises(TokenError):
                verify_token(wrong, keys[algorithm], policy(algorithm), NOW)


# What is not issued


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": ...},
        {"exp": "1750000300"},
        {"exp": True},
        {"exp": math.nan},
        {"exp": -1},
        {"iat": None},
        {"sub": 5},
        {"aud": []},
        {"aud": [5]},
        {"scope": ["a", "b"]},
        {"own": math.inf},
        {"own": {"a": [b"bytes"]}},
        {"own": {5: "a"}},
        {"own": {"a"}},
        {"own": "\ud800"},
        {"own": 10**5000},
        {5: "a"},
        {"own": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]},
        {"own": "x" * 12_500},
    ],
)
def test_what_no_strict_verifier_would_take_is_not_issued(keys: dict[str, Key], wrong: dict[Json, Json]) -> None:
    claims = {name: value for name, value in (CLAIMS | wrong).items() if value is not ...}
    with pytest.raises(ClaimRefused) as refused:
        issue_token(claims, keys["ES256"])
    assert refused.value.claim in ("", *map(str, wrong))


def test_an_audience_may_be_given_as_a_tuple(keys: dict[str, Key]) -> None:
    token = issue_token(CLAIMS | {"aud": ("api", "other")}, keys["ES256"])
    assert verify_token(token, keys["ES256"], policy("ES256"), NOW).audience == ("api", "other")


def test_a_public_key_issues_nothing(keys: dict[str, Key]) -> None:
    for key in (keys["ES256"].public, keys["RS256"].public, keys["Ed25519"].public):
        with pytest.raises(KeyRefused):
            issue_token(CLAIMS, key)


def test_a_token_of_another_type_is_for_a_policy_of_that_type(keys: dict[str, Key]) -> None:
    token = issue_token(CLAIMS, keys["ES256"], typ="logout+jwt")
    with pytest.raises(ClaimRefused):
        verify_token(token, keys["ES256"], policy("ES256"), NOW)
    other = Policy(issuer=CLAIMS["iss"], audience="api", typ="application/logout+jwt")
    assert verify_token(token, keys["ES256"], other, NOW)


# sign_jws and verify_jws


@given(st.binary(max_size=300))
def test_any_payload_comes_back_from_a_jws(payload: bytes) -> None:
    token = sign_jws(payload, ED25519, typ="x+jws", headers={"n": 1})
    jws = verify_jws(token, KeySet([ED25519.public]))
    assert jws.payload == payload
    assert jws.header == {"alg": "Ed25519", "kid": ED25519.kid, "typ": "x+jws", "n": 1}
    assert verify_jws(token.encode(), ED25519) == jws


@pytest.mark.parametrize("name", ["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "x5u", "zip", "enc"])
def test_protected_header_members_cannot_be_set(name: str) -> None:
    with pytest.raises(ClaimRefused, match=name):
        sign_jws(b"", ED25519, headers={name: "x"})


@pytest.mark.parametrize("headers", [{"n": math.nan}, {"n": b"x"}, {5: 5}, {"n": object()}])
def test_headers_that_are_no_json_are_not_signed(headers: dict[Json, Json]) -> None:
    with pytest.raises(ClaimRefused):
        sign_jws(b"", ED25519, headers=headers)


@pytest.mark.parametrize("typ", ["", 5, "\u00e9", b"x"])
def test_a_typ_that_no_verifier_would_take_is_not_signed(typ: Json) -> None:
    with pytest.raises(ClaimRefused):
        sign_jws(b"", ED25519, typ=typ)


def test_the_header_that_is_given_is_the_callers_own(keys: dict[str, Key]) -> None:
    token = sign_jws(b"x", keys["ES256"], headers={"n": [1]})
    for _ in range(3):
        header = verify_jws(token, keys["ES256"]).header
        assert header["n"] == [1]
        header["n"].append(2)
        header["alg"] = "none"


def test_claims_to_issue_may_be_any_mapping() -> None:
    key = generate_key("ES256")
    token = issue_token(MappingProxyType({"iss": "i", "aud": "a", "sub": "s", "iat": 1000, "exp": 1300}), key)
    assert verify_token(token, key.public, Policy(issuer="i", audience="a"), 1000).subject == "s"


def test_a_token_of_exactly_the_longest_length_is_issued_and_a_longer_one_is_not() -> None:
    key = generate_key("HS256", kid="k")
    rules = LintRules(max_payload_bytes=MAX_TOKEN_BYTES)

    def issued(size: int) -> str:
        return issue_token({"exp": 1, "own": "-" * size}, key, typ="a", lint=rules)

    assert len(issued(12_201)) == MAX_TOKEN_BYTES
    with pytest.raises(ClaimRefused, match=str(MAX_TOKEN_BYTES)) as refused:
        issued(12_202)
    assert refused.value.claim == ""
