"""Bodies to typed values, once, at the edge: strict JSON, known members, right types; it knows no endpoint."""

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from jotgate.core.encoding import JsonRefused, parse_json_object
from jotgate.server.http.exchange import Request
from jotgate.server.refusals import BodyRefused, GrantRefused, MemberRefused, UnsupportedMediaType
from jotgate.server.secret import Secret

_Input = TypeVar("_Input", bound=Struct)

_JSON: Final = re.compile(r"application/json\s*(;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
_FORM: Final = re.compile(r"application/x-www-form-urlencoded\s*(;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
_MESSAGES: Final = {
    "invalid_utf8": "The body must be JSON in UTF-8.",
    "invalid_json": "The body is not valid JSON.",
    "duplicate_member": "The body names a member twice.",
    "nesting_too_deep": "The body is nested too deeply.",
    "number_out_of_range": "The body holds a number that is out of range.",
    "not_an_object": "The body must be a JSON object.",
}
_MAX_FORM_FIELDS: Final = 20


def parse_json_body(request: Request, kind: type[_Input]) -> _Input:
    """Return the body as the given type. No body at all counts as ``{}``.

    Raises:
        UnsupportedMediaType: it is not ``application/json``, or it is compressed.
        BodyRefused: it is not strict JSON.
        MemberRefused: a member is unknown, missing or of the wrong type.
    """
    _check_identity_encoding(request)
    media_type = request.one(b"content-type")
    if request.body or media_type is not None:
        _check_media_type(media_type, _JSON, "application/json")
    try:
        members = parse_json_object(request.body or b"{}")
    except JsonRefused as error:
        raise BodyRefused(error.reason, _MESSAGES[error.reason]) from None
    if _holds_nul(members):
        raise BodyRefused("nul_in_text", "The body holds a NUL character.")
    return _typed(members, kind)


def parse_form_body(request: Request) -> dict[str, str]:
    """Return the parameters of an OAuth endpoint (RFC 6749 appendix B); empty values count as left out (section 3.1).

    Raises:
        UnsupportedMediaType: it is not a form.
        GrantRefused: ``invalid_request``: not UTF-8, a NUL, or a parameter that is repeated.
    """
    _check_identity_encoding(request)
    _check_media_type(request.one(b"content-type"), _FORM, "application/x-www-form-urlencoded")
    parts = request.body.split(b"&") if request.body else []
    if len(parts) > _MAX_FORM_FIELDS:
        raise GrantRefused("invalid_request", "The request has too many parameters.")
    values: dict[str, str] = {}
    for part in parts:
        raw_name, _, raw_value = part.partition(b"=")
        try:
            name, value = (unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8") for raw in (raw_name, raw_value))
        except UnicodeDecodeError:
            raise GrantRefused("invalid_request", "The request is not UTF-8.") from None
        if "\0" in name + value:
            raise GrantRefused("invalid_request", "The request holds a NUL character.")
        if name in values:
            raise GrantRefused("invalid_request", "A parameter is repeated.")
        values[name] = value
    return {name: value for name, value in values.items() if value}


def _check_identity_encoding(request: Request) -> None:
    if (request.one(b"content-encoding") or "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without Content-Encoding.")


def _check_media_type(media_type: str | None, wanted: re.Pattern[str], name: str) -> None:
    if media_type is None or not wanted.fullmatch(media_type.strip()):
        raise UnsupportedMediaType(f"Send the body as {name}.")


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def _typed(members: Mapping[str, Any], kind: type[_Input]) -> _Input:
    known = _members_of(kind)
    if not members.keys() <= known.keys():
        raise MemberRefused("unknown_member", f"The body may hold only {', '.join(known) or 'no members'}.")
    missing = [name for name, each in known.items() if each.required and name not in members]
    if missing:
        raise MemberRefused("missing_member", f"The body lacks {', '.join(missing)}.")
    values: dict[str, Any] = {}
    for name, value in members.items():
        try:
            values[known[name].name] = msgspec.convert(value, known[name].type, dec_hook=_decode_secret)
        except msgspec.ValidationError:
            raise MemberRefused("wrong_type", f"{name} must be {_kind_name(known[name].type)}.") from None
    return kind(**values)


@functools.cache
def _members_of(kind: type[Struct]) -> Mapping[str, FieldInfo]:
    """Read the annotations of a kind of input once, not with each request."""
    return {each.encode_name: each for each in fields(kind)}


def _decode_secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError("not a text")


def _kind_name(kind: Any) -> str:  # noqa: ANN401 - any annotation of a field
    schema = msgspec.json.schema(kind, schema_hook=secret_schema)
    variants = schema.get("anyOf", [schema])
    names = [
        " or ".join(f'"{value}"' for value in variant["enum"]) if "enum" in variant else variant.get("type", "valid")
        for variant in variants
        if variant.get("type") != "null"
    ]
    return " or ".join("a string" if name == "string" else name for name in names)


def secret_schema(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a ``Secret``; the hook that msgspec asks for types that are not its own."""
    if kind is not Secret:
        raise TypeError(kind)
    return {"type": "string", "format": "password"}
