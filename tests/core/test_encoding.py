"""Canonical base64url and strict JSON."""

from __future__ import annotations

import base64
import json
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jotgate.core.encoding import (
    JsonRefused,
    decode_segment,
    encode_json_object,
    encode_segment,
    parse_json_object,
)
from jotgate.core.errors import MalformedToken

if TYPE_CHECKING:
    from _collections_abc import dict_values

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.binary(max_size=100))
def test_every_value_comes_back_from_its_segment(raw: bytes) -> None:
    assert decode_segment(encode_segment(raw)) == raw
    assert decode_segment(encode_segment(raw).encode()) == raw


@given(st.binary(max_size=5000))
def test_bytes_are_written_as_the_standard_library_writes_them(raw: bytes) -> None:
    expected = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    assert encode_segment(raw) == expected
    for alike in (bytearray(raw), memoryview(raw)):
        assert encode_segment(cast("bytes", alike)) == expected


@pytest.mark.parametrize("other", ["text", None, 5, {"a": 1}, [1]])
def test_nothing_but_bytes_is_written_as_a_segment(other: object) -> None:
    with pytest.raises(TypeError):
        encode_segment(cast("bytes", other))


@given(st.text(alphabet=ALPHABET + "+/= \n.é\x00", max_size=12) | st.binary(max_size=12))
@example("QR")
@example("QQ==")
@example("QUJD\n")
@example("QUI=QUJD")
def test_a_value_has_exactly_one_segment(text: str | bytes) -> None:
    try:
        raw = decode_segment(text)
    except MalformedToken:
        return
    assert encode_segment(raw) == (text if isinstance(text, str) else text.decode())


@pytest.mark.parametrize(
    "text",
    [
        "QUJD=",
        "QQ==",
        "QUI=",
        "Q",
        "QUJDQ",
        "QR",
        "QUJ",
        "QU D",
        " QUJD",
        "QUJD\n",
        "QU+D",
        "QU/D",
        "QUJ\u00e9",
        "QU.D",
        "A===",
    ],
)
def test_base64_padding_whitespace_other_alphabet_trailing_bits_and_length_are_malformed(text: str) -> None:
    with pytest.raises(MalformedToken):
        decode_segment(text)


@given(st.lists(st.sampled_from(ALPHABET), min_size=2, max_size=3).map("".join))
def test_of_all_spellings_of_one_value_one_is_taken(text: str) -> None:
    spellings = 16 if len(text) == 2 else 4
    start = ALPHABET.index(text[-1]) // spellings * spellings
    taken = []
    for last in ALPHABET[start : start + spellings]:
        try:
            decode_segment(text[:-1] + last)
        except MalformedToken:
            continue
        taken.append(last)
    assert taken == [ALPHABET[start]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


@given(OBJECTS, st.booleans(), st.sampled_from([None, 1]))
def test_a_json_object_in_any_spelling_is_read_as_the_standard_library_reads_it(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parse_json_object(text.encode()) == json.loads(text)


@given(OBJECTS)
def test_a_json_object_comes_back_as_it_was_written(value: dict[str, Any]) -> None:
    assert parse_json_object(encode_json_object(value)) == value


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0d8eE+-.1NaInfty \t\x00', max_size=40).map(str.encode))
def test_whatever_the_bytes_json_is_read_or_refused_and_never_more_laxly_than_by_the_standard_library(
    raw: bytes,
) -> None:
    try:
        value = parse_json_object(raw)
    except JsonRefused:
        return
    assert json.loads(raw) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a":1}x', "invalid_json"),
        (b"{'a':1}", "invalid_json"),
        (b'{"a":01}', "invalid_json"),
        (b'{"a":"\n"}', "invalid_json"),
        (b'\xef\xbb\xbf{"a":1}', "invalid_json"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
        ('{"a":1}'.encode("utf-16"), "invalid_utf8"),
        ('{"a":1}'.encode("utf-16-le"), "invalid_json"),
        (b'{"a":"\\ud800"}', "invalid_json"),
        (b'{"\\udc00":1}', "invalid_json"),
        (b'{"a":["\\ud83d","\\ude00"]}', "invalid_json"),
        (b'{"a":NaN}', "number_out_of_range"),
        (b'{"a":-Infinity}', "number_out_of_range"),
        (b'{"a":1e400}', "number_out_of_range"),
        (b'{"a":-1e400}', "number_out_of_range"),
        (b'{"a":' + b"9" * 4301 + b"}", "number_out_of_range"),
        (b'{"a":1.' + b"9" * 4301 + b"}", "number_out_of_range"),
        (b'{"a":1,"a":2}', "duplicate_member"),
        (b'{"a":1,"a":1}', "duplicate_member"),
        (b'{"a":1,"\\u0061":1}', "duplicate_member"),
        (b'{"b":{"a":1,"a":2}}', "duplicate_member"),
        (b'{"b":[[{"a":1,"c":0,"a":2}]]}', "duplicate_member"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
    ],
)
def test_what_is_no_strict_json_object_is_refused_with_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(JsonRefused) as refused:
        parse_json_object(raw)
    assert refused.value.reason == reason


def nested(levels: int, opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return opening * levels + b"1" + closing * levels


def test_nesting_is_taken_up_to_the_limit_and_no_deeper() -> None:
    assert parse_json_object(nested(4), max_depth=4) == {"a": {"a": {"a": {"a": 1}}}}
    for raw in (nested(5), b'{"b":' + nested(4, b"[", b"]") + b"}"):
        with pytest.raises(JsonRefused) as refused:
            parse_json_object(raw, max_depth=4)
        assert refused.value.reason == "nesting_too_deep"


def test_brackets_in_texts_and_side_by_side_do_not_nest() -> None:
    value = {"c": "\\", "a": "[[[[{{{{", "b": [[], [], [], {}], "e": '\\"[[[', "d": ["]]"], "\\": 1}
    assert parse_json_object(json.dumps(value).encode(), max_depth=3) == value


def test_what_closes_again_counts_once_and_an_open_text_does_not_nest() -> None:
    for raw, reason in (
        (b'{"a":[[],[],[[[]]]]}', "nesting_too_deep"),
        (b'{"a":{"a":{"a":{"a":"[', "invalid_json"),
    ):
        with pytest.raises(JsonRefused) as refused:
            parse_json_object(raw, max_depth=4)
        assert refused.value.reason == reason


def test_a_refusal_is_a_sentence_without_its_reason() -> None:
    assert str(JsonRefused("invalid_json", "A sentence.")) == "A sentence."


@pytest.mark.parametrize("max_depth", [32, 10**9])
def test_a_mountain_of_brackets_is_refused_without_running_out_of_stack(max_depth: int) -> None:
    for raw in (b"[" * 100_000, nested(100_000), b'{"a":' * 50_000):
        with pytest.raises(JsonRefused) as refused:
            parse_json_object(raw, max_depth=max_depth)
        assert refused.value.reason == "nesting_too_deep"


def test_an_open_string_full_of_quotes_is_refused_in_linear_time() -> None:
    # With a scanner that goes back, this takes minutes and the suite hangs here.
    with pytest.raises(JsonRefused):
        parse_json_object(b"[" * 33 + b'\\"' * 500_000)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a": math.nan}, "number_out_of_range"),
        ({"a": [math.inf]}, "number_out_of_range"),
        ({"a": b"bytes"}, "invalid_json"),
        ({"a": {1: 2}}, "invalid_json"),
        ({1: 2}, "invalid_json"),
        ({"a": {"b"}}, "invalid_json"),
        ({"a": object()}, "invalid_json"),
        ({"a": "\ud800"}, "invalid_json"),
        ({"a": 10**5000}, "invalid_json"),
    ],
)
def test_what_json_does_not_have_is_not_written(members: dict[str, Any], reason: str) -> None:
    with pytest.raises(JsonRefused) as refused:
        encode_json_object(members)
    assert refused.value.reason == reason


class Sly(dict[str, object]):
    """Shows another content to whoever looks than to msgspec, which takes what is stored."""

    def values(self) -> dict_values[str, object]:
        return {}.values()


class Pair(NamedTuple):
    one: int


@pytest.mark.parametrize(
    "value", [Sly(a=math.nan), OrderedDict(a=1), Pair(1), type("Own", (list,), {})(), type("Own", (str,), {})("x")]
)
def test_a_value_of_a_type_derived_from_one_of_jsons_is_not_written(value: object) -> None:
    with pytest.raises(JsonRefused) as refused:
        encode_json_object({"a": value})
    assert (refused.value.reason, refused.value.member) == ("invalid_json", "a")


def test_what_could_not_be_read_back_for_its_depth_is_not_written() -> None:
    assert encode_json_object({"a": [[1]]}, max_depth=3) == b'{"a":[[1]]}'
    endless: list[object] = []
    endless.append(endless)
    for value in ([[[1]]], endless):
        with pytest.raises(JsonRefused) as refused:
            encode_json_object({"b": 1, "a": value}, max_depth=3)
        assert (refused.value.reason, refused.value.member) == ("nesting_too_deep", "a")


def test_tuples_are_written_as_lists() -> None:
    assert parse_json_object(encode_json_object({"a": (1, ("x",))})) == {"a": [1, ["x"]]}
