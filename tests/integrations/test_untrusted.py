"""Whatever headers come, a guard admits or refuses; it never fails in another way."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotgate import Claims
from jotgate.integrations.guard import Guard, Refused
from jotgate.testing import TestAuth

KIT = TestAuth()
GOOD = KIT.token("alice")
GUARD = Guard(KIT.verifier, trusted_proxies=1)

NAMES = """authorization Authorization cookie accept sec-fetch-site sec-fetch-dest sec-websocket-protocol
forwarded x-forwarded-for x-forwarded-proto"""
VALUES = (
    f"Bearer {GOOD}",
    GOOD,
    f"jotgate.bearer, {GOOD}",
    f"{GUARD.cookie_name}={GOOD}",
    "text/event-stream",
    "same-origin",
    "https",
    "for=1;proto=https",
    "127.0.0.1",
)
names = st.sampled_from(NAMES.split()).map(str.encode)
values = st.binary(max_size=40) | st.sampled_from(VALUES).map(str.encode)


def outcome(scope: dict[str, object], *, stream: bool) -> Claims | Refused:
    try:
        return asyncio.run(GUARD.admit(scope, stream=stream))
    except Refused as refused:
        return refused


@settings(max_examples=300)
@given(st.lists(st.tuples(names, values), max_size=5), st.sampled_from(["http", "websocket"]), st.booleans())
def test_any_headers_are_admitted_or_refused(headers: list[tuple[bytes, bytes]], kind: str, stream: bool) -> None:
    scope: dict[str, object] = {
        "type": kind,
        "method": "GET",
        "path": "/",
        "scheme": "https",
        "client": None,
        "headers": headers,
    }
    result = outcome(scope, stream=stream)
    if isinstance(result, Refused):
        assert 400 <= result.status < 500
        assert GOOD not in f"{result} {result.headers} {result.body!r}"
        assert all(value.isascii() and value.isprintable() for value in result.headers.values())
    else:
        assert any(GOOD.encode() in value for _, value in headers)
        assert sum(name.lower() == b"authorization" for name, _ in headers) <= 1


@pytest.mark.parametrize("origin", ["header", "cookie"])
def test_the_fuzzer_above_can_get_in(origin: str) -> None:
    """Else it would show nothing."""
    headers = {
        "header": [(b"authorization", f"Bearer {GOOD}".encode())],
        "cookie": [
            (b"cookie", f"{GUARD.cookie_name}={GOOD}".encode()),
            (b"accept", b"text/event-stream"),
            (b"sec-fetch-site", b"same-origin"),
            (b"sec-fetch-dest", b"empty"),
        ],
    }[origin]
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "https", "client": None, "headers": headers}
    assert asyncio.run(GUARD.admit(scope, stream=True)).subject == "alice"
