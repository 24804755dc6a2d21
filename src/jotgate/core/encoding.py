"""Bytes to text and back: canonical base64url (RFC 7515 §2) and strict JSON (RFC 8259, RFC 7493); knows no token.

Python's own decoders are too lax for signed text: `urlsafe_b64decode` drops junk and takes two spellings of one value;
`json` lets the last of two equal members win and takes NaN, byte order marks and lone surrogates; msgspec lets the
last duplicate win as well.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec

from jotgate.core.errors import MalformedToken

MAX_JSON_DEPTH = 32
MAX_NUMBER_DIGITS = 4300  # where msgspec stops too, and int() by default

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# To the standard alphabet, and every byte that base64url does not have (the standard one's own two, the padding, what
# means something in JSON) to one that base64 does not have.
_FROM_URL = bytes(byte if byte in _ALPHABET else ord("!") for byte in range(256)).translate(
    bytes.maketrans(b"-_", b"+/")
)
# The last character of a segment whose length is 2 or 3 modulo 4 carries 4 or 2 unused bits, which must be zero: what
# follows it in a JSON text. A length of 1 modulo 4 has no last character that would do.
_ENDS: tuple[dict[int, bytes], ...] = (
    {},
    {},
    dict.fromkeys(_ALPHABET[::16], b'=="'),
    dict.fromkeys(_ALPHABET[::4], b'="'),
)
_decode_base64 = msgspec.json.Decoder(bytes).decode
_encode = msgspec.json.Encoder().encode


def encode_segment(raw: bytes) -> str:
    """Encode as base64url without padding (RFC 7515 §2)."""
    if type(raw) is not bytes:
        raw = bytes(memoryview(raw))  # a TypeError for text, which msgspec would write as it stands
    # As in JSON, less the quotation marks: it takes two thirds of the time of `binascii` and `translate`.
    return _encode(raw).replace(b"+", b"-").replace(b"/", b"_").strip(b'"=').decode("ascii")


def decode_segment(segment: str | bytes) -> bytes:
    """Decode unpadded base64url; every value has exactly one spelling that is taken.

    Raises MalformedToken for padding, whitespace, `+` or `/`, non-zero unused bits and impossible lengths.
    """
    try:
        text = segment.encode("ascii") if isinstance(segment, str) else segment
        remainder = len(text) & 3
        end = _ENDS[remainder][text[-1]] if remainder else b'"'
        # msgspec is twice as fast as binascii; with the table, whatever is not of the alphabet ends in its refusal.
        return _decode_base64(b'"' + text.translate(_FROM_URL) + end)
    except (msgspec.MsgspecError, KeyError, UnicodeEncodeError):
        raise MalformedToken("A part of the token is not canonical base64url.") from None


def encode_json_object(members: dict[str, Any], *, max_depth: int = MAX_JSON_DEPTH) -> bytes:
    """Write a JSON object that `parse_json_object` reads back as it was (tuples as lists).

    Raises JsonRefused, with the `member` at fault, for what is no JSON value: msgspec alone would write NaN as null,
    bytes and dates as text.
    """
    for name, value in members.items():
        try:
            _check_name(name)
            _check_json(value, max_depth - 1)
        except JsonRefused as refused:
            refused.member = str(name)
            raise
    try:
        return _encode(members)
    except ValueError:  # lone surrogates, integers of more than 4300 digits
        raise JsonRefused("invalid_json", "A text is not Unicode, or a number too long.") from None


def _check_name(name: object) -> None:
    if type(name) is not str:
        raise JsonRefused("invalid_json", "The name of a member is not text.")


def _check_json(value: object, levels: int) -> None:
    if type(value) in _SCALARS:
        if isinstance(value, float) and not math.isfinite(value):
            raise JsonRefused("number_out_of_range", "NaN and infinities are not JSON numbers.")
        return
    if levels == 0:
        raise JsonRefused("nesting_too_deep", "The value nests too deeply.")
    members: Iterable[object]
    if type(value) is dict:
        for name in value:
            _check_name(name)
        members = value.values()
    elif type(value) is list or type(value) is tuple:
        members = value
    else:
        raise JsonRefused("invalid_json", "The value is not one that JSON has.")
    for member in members:
        _check_json(member, levels - 1)


_SCALARS = frozenset((str, int, float, bool, type(None)))


class JsonRefused(ValueError):
    """JSON that is not taken; `reason` is one of the codes named at `parse_json_object`.

    `member` names the top-level member that cannot be written, where there is one.
    """

    member: str | None = None

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_BRACKET = ord("[")  # a number is found four times as fast as a text of one character
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def parse_json_object(raw: bytes, *, max_depth: int = MAX_JSON_DEPTH) -> dict[str, Any]:
    """Parse one JSON object, strictly.

    Raises JsonRefused, whose `reason` is `invalid_utf8`, `invalid_json`, `duplicate_member` (at any depth),
    `nesting_too_deep` (the object itself is depth 1), `number_out_of_range` (NaN, infinities, more than 4300 digits) or
    `not_an_object`. A byte order mark and lone surrogates are `invalid_json`.
    """
    # msgspec is many times faster than the strict parser, and lax only where the text differs from how msgspec itself
    # would write the value: a text that comes out again byte for byte repeats no member, for a dict cannot.
    if (raw.rfind(b"{") <= 0 and _BRACKET not in raw) or raw.count(b"{") + raw.count(b"[") <= max_depth:
        try:
            value = _decode_object(raw)
            if _encode(value) == raw:
                return value
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the strict parser decides, and names the fault
    return _parse_strictly(raw, max_depth)


# Strings are matched whole, and the end of the text ends an open one: linear time on any input.
_STRING_OR_BRACKET = re.compile(r'"(?>[^"\\]+|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _parse_strictly(raw: bytes, max_depth: int) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise JsonRefused("invalid_utf8", "The JSON text is not UTF-8.") from None
    if raw.count(b"{") + raw.count(b"[") > max_depth:
        _check_depth(text, max_depth)
    try:
        value = _STRICT.decode(text)
        if "\\u" in text:
            _check_surrogates(value)
    except JsonRefused:
        raise
    except ValueError:
        raise JsonRefused("invalid_json", "The text is not JSON.") from None
    except RecursionError:  # only where a caller's max_depth is beyond the interpreter's own
        raise JsonRefused("nesting_too_deep", "The JSON text nests deeper than the interpreter can follow.") from None
    if type(value) is not dict:
        raise JsonRefused("not_an_object", "The JSON text is not an object.")
    return value


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                raise JsonRefused("nesting_too_deep", f"The JSON text nests deeper than {max_depth} levels.")
        elif first in "]}":
            depth -= 1


def _check_surrogates(value: object) -> None:
    # A lone surrogate escape survives json's decoder and cannot be written as UTF-8.
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonRefused("duplicate_member", "A JSON object names a member twice.")
    return members


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_NUMBER_DIGITS:
        raise JsonRefused("number_out_of_range", "A JSON number has too many digits.")
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits) if len(digits) <= MAX_NUMBER_DIGITS else math.inf
    if math.isinf(number):
        raise JsonRefused("number_out_of_range", "A JSON number is out of range.")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise JsonRefused("number_out_of_range", "NaN and infinities are not JSON numbers.")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_int=_parse_int,
    parse_float=_parse_float,
    parse_constant=_refuse_constant,
)
