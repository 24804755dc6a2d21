"""Signing and opening compact JWS, below claims and policies."""

from __future__ import annotations

import pytest

from jotgate import ClaimRefused, KeySet, generate_key, sign_jws, verify_jws

KEY = generate_key("HS256")
# What the signer sets, or what would make others read the token in another way.
RESERVED = (
    *("alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"),  # RFC 7515 §4.1, RFC 7797
    *("enc", "zip", "epk", "p2c"),  # RFC 7516 §4.1, RFC 7518 §4
)


@pytest.mark.parametrize(
    ("headers", "member"),
    [
        *(({name: "x"}, name) for name in RESERVED),
        ({"own": 1, "bad": float("nan")}, "bad"),
        ({"own": "\ud800"}, ""),  # found only when all is written
    ],
)
def test_a_header_that_cannot_be_signed_is_refused_by_the_name_of_its_member(
    headers: dict[str, object], member: str
) -> None:
    with pytest.raises(ClaimRefused, match="header") as refused:
        sign_jws(b"{}", KEY, headers=headers)
    assert refused.value.claim == member


@pytest.mark.parametrize("typ", ["", "\u00e9", b"JWT"])
def test_a_type_that_is_no_media_type_is_not_signed(typ: str) -> None:
    with pytest.raises(ClaimRefused) as refused:
        sign_jws(b"{}", KEY, typ=typ)
    assert refused.value.claim == "typ"


def test_keys_and_tokens_of_derived_types_are_taken_for_what_they_are() -> None:
    class OwnSet(KeySet):
        __slots__ = ()

    class Text(str):
        __slots__ = ()

    class Bytes(bytes):
        __slots__ = ()

    token = sign_jws(b"{}", KEY)
    for text in (Text(token), Bytes(token.encode())):
        assert verify_jws(text, OwnSet([KEY])).payload == b"{}"


def test_what_a_jws_says_is_not_changed_by_whoever_reads_it() -> None:
    jws = verify_jws(sign_jws(b"{}", KEY), KEY)
    with pytest.raises(AttributeError):
        jws.payload = b"other"  # type: ignore[misc] # the promise
