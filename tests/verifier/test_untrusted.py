"""Whatever an issuer's address answers is understood or refused by our own error, and never by another."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotgate import KeySet, generate_key
from jotgate.core.algorithms import ASYMMETRIC
from jotgate.verifier.addresses import check_https_url, metadata_urls
from jotgate.verifier.discovery import parse_key_set, parse_max_age, parse_metadata
from jotgate.verifier.transport import FetchError

KEY = generate_key("ES256")
JWKS = KeySet([generate_key("ES256"), generate_key("Ed25519")]).to_jwks()
ISSUER = "https://issuer.example"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(["kty", "crv", "x", "y", "alg", "kid", "use", "key_ops", "n", "e", "d", "k", "x5c"])


@st.composite
def nearly_key_sets(draw: st.DrawFn) -> bytes:
    """A good set in which some members became anything."""
    keys: list[object] = [{**jwk, **draw(st.dictionaries(members, json_values, max_size=2))} for jwk in JWKS["keys"]]
    return json.dumps({"keys": [*keys, *draw(st.lists(json_values, max_size=2))]}).encode()


@settings(max_examples=150)
@given(nearly_key_sets() | st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_key_set_gives_keys_or_a_fetch_error(raw: bytes) -> None:
    with contextlib.suppress(FetchError):
        keys = parse_key_set(raw, ASYMMETRIC)
        assert len(keys)
        assert not keys.symmetric
        assert not any("d" in jwk for jwk in keys.to_jwks()["keys"])


@settings(max_examples=150)
@given(json_values, json_values | st.text().map("https://".__add__))
def test_metadata_gives_an_https_address_or_a_fetch_error(named: object, uri: object) -> None:
    document = {"issuer": named, "jwks_uri": uri}
    with contextlib.suppress(FetchError):
        parse_metadata(json.dumps(document).encode(), ISSUER)
        raise AssertionError("an issuer that is not the right one")
    with contextlib.suppress(FetchError):
        found = parse_metadata(json.dumps(document | {"issuer": ISSUER}).encode(), ISSUER)
        assert found == uri
        assert found.startswith("https://")


@settings(max_examples=150)
@given(st.text() | st.text(alphabet="https:/[]@%\\?#.0a ", max_size=30).map("https://".__add__))
def test_an_address_is_plain_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        check_https_url(text)
        assert all(url.startswith("https://") for url in metadata_urls(text))


@given(st.text())
def test_any_cache_control_is_a_number_of_seconds_or_nothing(text: str) -> None:
    seconds = parse_max_age(text)
    assert seconds is None or seconds >= 0


def test_a_set_with_a_private_key_is_refused_whole() -> None:
    published = {"keys": [*JWKS["keys"], dict(generate_key("ES256").to_private_jwk())]}
    with pytest.raises(FetchError, match="private"):
        parse_key_set(json.dumps(published).encode(), ASYMMETRIC)


def test_a_set_in_which_two_keys_have_one_name_is_refused_whole() -> None:
    published = {"keys": [jwk | {"kid": "same"} for jwk in JWKS["keys"]]}
    with pytest.raises(FetchError, match="same kid"):
        parse_key_set(json.dumps(published).encode(), ASYMMETRIC)


def test_one_broken_key_does_not_cost_the_others() -> None:
    published = {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "new"}, *JWKS["keys"]]}
    assert len(parse_key_set(json.dumps(published).encode(), ASYMMETRIC)) == 2


def test_an_rsa_key_without_alg_is_for_the_one_rsa_algorithm_that_is_allowed() -> None:
    jwk = dict(generate_key("RS256").to_jwk())
    jwk.pop("alg")
    published = json.dumps({"keys": [jwk]}).encode()
    (key,) = parse_key_set(published, ("RS256", "ES256"))
    assert key.algorithm == "RS256"
    with pytest.raises(FetchError):
        parse_key_set(published, ASYMMETRIC)


def test_the_three_places_are_those_of_the_standards() -> None:
    """RFC 8414 section 3.1 and OpenID Connect Discovery 1.0 section 4.1, whose slashes at the end do not count."""
    assert metadata_urls("https://a.example/tenant/") == (
        "https://a.example/.well-known/oauth-authorization-server/tenant",
        "https://a.example/tenant/.well-known/openid-configuration",
        "https://a.example/tenant/.well-known/oauth-authorization-server",
    )
    assert metadata_urls("https://a.example:8443") == (
        "https://a.example:8443/.well-known/oauth-authorization-server",
        "https://a.example:8443/.well-known/openid-configuration",
    )


@pytest.mark.parametrize("kind", ["private", "symmetric", "public"])
def test_a_key_hidden_in_a_text_is_no_key_of_a_set(kind: str) -> None:
    hidden = {
        "private": KEY.to_private_jwk(),
        "symmetric": {"kty": "oct", "alg": "HS256", "k": "3q2-796tvu_erb7v3q2-796tvu_erb7v3q2-796tvu8"},
        "public": KEY.to_jwk(),
    }[kind]
    keys = parse_key_set(json.dumps({"keys": [json.dumps(hidden), *JWKS["keys"]]}).encode(), ASYMMETRIC)
    assert keys.to_jwks() == JWKS
    assert keys.skipped == ((0, "A key in a JWK set is a JSON object."),)


def test_a_set_without_a_usable_key_says_why() -> None:
    without_alg = {name: value for name, value in generate_key("RS256").to_jwk().items() if name != "alg"}
    with pytest.raises(FetchError, match=r"holds no usable key for .*; .*alg"):
        parse_key_set(json.dumps({"keys": [without_alg]}).encode(), ASYMMETRIC)
