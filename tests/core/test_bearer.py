"""The Authorization header's Bearer scheme."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate import MalformedToken
from jotgate.core.bearer import parse_authorization
from jotgate.core.jws import MAX_TOKEN_BYTES


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer abc.def.ghi", "abc.def.ghi"),
        (b"Bearer abc.def.ghi", "abc.def.ghi"),
        ("bearer abc", "abc"),
        ("BEARER   abc", "abc"),
        (" Bearer abc \t", "abc"),
        ("Bearer a-._~+/9==", "a-._~+/9=="),
    ],
)
def test_the_token_of_a_bearer_header_is_given(value: str | bytes, token: str) -> None:
    assert parse_authorization(value) == token


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        b"",
        " ",
        "Basic dXNlcjpwYXNz",
        "Bearerx abc",
        "DPoP abc",
        "Be\u0430rer abc",
        "x Bearer abc",
        "\u212aearer a",
    ],
)
def test_no_header_and_other_schemes_are_none(value: str | bytes | None) -> None:
    assert parse_authorization(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer ",
        "Bearer\tabc",
        "Bearer a b",
        "Bearer abc, Bearer def",
        "Bearer abc,def",
        "Bearer =",
        b"Bearer =",
        "Bearer =abc",
        "Bearer a=b",
        "Bearer abc\r\nX: y",
        "Bearer abc\n",
        'Bearer token="abc"',
        "Bearer abc;",
        "Bearer \u00e9",
        b"Bearer \xff",
        "Bearer \u0661",
        "Bearer,abc",
        "Bearer/abc",
        "bearer:abc",
        "Bearer " + "a" * 16_500,
        b"Bearer " + b"a" * 16_500,
    ],
)
def test_a_bearer_header_without_exactly_one_token_is_malformed(value: str | bytes) -> None:
    with pytest.raises(MalformedToken) as refused:
        parse_authorization(value)
    assert "abc" not in str(refused.value)


def test_a_header_may_be_sixteen_characters_longer_than_the_longest_token() -> None:
    for spaces in (1, 10):
        assert parse_authorization(f"Bearer{' ' * spaces}{'a' * MAX_TOKEN_BYTES}") == "a" * MAX_TOKEN_BYTES
    with pytest.raises(MalformedToken):
        parse_authorization(f"Bearer{' ' * 11}{'a' * MAX_TOKEN_BYTES}")


@given(st.text() | st.binary() | st.text(alphabet="Bbearer \t=.,a\n").map(lambda text: "Bearer" + text))
def test_any_header_value_gives_a_clean_token_none_or_malformed(value: str | bytes) -> None:
    try:
        token = parse_authorization(value)
    except MalformedToken:
        return
    assert token is None or (token and token.isascii() and not set(token) & set(' \t\r\n,;"'))
