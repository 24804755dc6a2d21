"""JSONTestSuite: what is no JSON is refused as header and as claims, by our own error and no other."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest

from jotgate import Key, MalformedToken, Policy, TokenError, generate_key, sign_jws, verify_jws, verify_token
from jotgate.core.encoding import JsonRefused, encode_segment, parse_json_object

NOW = 1_750_000_000
POLICY = Policy(issuer="i", audience="a", algorithms=("HS256",))


@pytest.fixture(scope="module")
def key() -> Key:
    return generate_key("HS256")


@pytest.fixture(scope="module")
def cases(vectors: Path) -> list[tuple[str, str, bytes]]:
    """Name, what is expected, and the text."""
    lines = (vectors / "json-parsing.jsonl").read_text("utf-8").splitlines()
    found = [(case["name"], case["expect"], b64decode(case["input_b64"])) for case in map(json.loads, lines)]
    assert len(found) > 300
    return found


def with_header(raw: bytes, key: Key) -> str:
    text = f"{encode_segment(raw)}.e30"
    return f"{text}.{encode_segment(key.sign(text.encode()))}"


def test_every_text_that_json_refuses_is_malformed_as_header_and_as_claims(
    cases: list[tuple[str, str, bytes]], key: Key
) -> None:
    for name, expect, raw in cases:
        if expect != "reject":
            continue
        # Inside an object as well: most of the suite's texts are arrays, which are refused for that alone.
        for text in (raw, b'{"v":' + raw + b"}"):
            with pytest.raises(MalformedToken):
                pytest.fail(f"header {name}: {verify_jws(with_header(text, key), key)}")
            with pytest.raises(MalformedToken):
                pytest.fail(f"claims {name}: {verify_token(sign_jws(text, key, typ='at+jwt'), key, POLICY, NOW)}")


def test_every_text_that_json_takes_is_read_unless_it_repeats_a_member(
    cases: list[tuple[str, str, bytes]],
) -> None:
    refused = {}
    for name, expect, raw in cases:
        if expect != "accept":
            continue
        text = b'{"v":' + raw + b"}"
        try:
            value = parse_json_object(text)
        except JsonRefused as error:
            refused[name] = error.reason
        else:
            assert value == json.loads(text), name
    assert refused == {
        "y_object_duplicated_key.json": "duplicate_member",
        "y_object_duplicated_key_and_value.json": "duplicate_member",
    }


def test_texts_that_may_be_taken_or_refused_raise_nothing_but_token_errors(
    cases: list[tuple[str, str, bytes]], key: Key
) -> None:
    for _, _, raw in cases:
        for text in (raw, b'{"v":' + raw + b"}"):
            with pytest.raises(TokenError):
                verify_token(sign_jws(text, key, typ="at+jwt"), key, POLICY, NOW)
            with pytest.raises(TokenError):
                verify_jws(with_header(text, key), key)
