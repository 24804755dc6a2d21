"""Compact JWS (RFC 7515): bytes in, signed text out, and back; knows keys and headers, but no claim and no time.

Only the compact form exists: no JSON serialisation, no JWE, no detached or unencoded payload, no critical extension,
and no key is ever taken from a token.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeGuard

import msgspec

from jotgate.core.algorithms import ALGORITHMS, CURRENT
from jotgate.core.encoding import JsonRefused, decode_segment, encode_json_object, encode_segment, parse_json_object
from jotgate.core.errors import AlgorithmRefused, ClaimRefused, MalformedToken, UnknownKey
from jotgate.core.jwk import MAX_KID_CHARS, Key, KeySet, Route

MAX_TOKEN_BYTES = 16_384
"""Longer tokens are refused before anything in them is looked at."""

_DOT = ord(".")  # a number is found four times as fast as a text of one character

# A set remembers what headers lead to: most tokens of an issuer share one header. Only headers of tokens whose
# signature was good are remembered, so that nobody else can fill it.
_MAX_ROUTES = 64
_MAX_ROUTE_BYTES = 1024
# A key remembers the headers that it signs with: one for each `typ`, and issuers have few.
_MAX_HEADS = 16

# Header members that the signer sets, or that would change how a token must be read (RFC 7515 §4.1, RFC 7516, 7797).
_RESERVED = frozenset(
    ("alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "enc", "zip", "epk", "p2c")
)


class Jws(msgspec.Struct, frozen=True):
    """What a verified JWS says: its header's members and its payload's bytes."""

    header: dict[str, Any]
    payload: bytes


class _Header(NamedTuple):
    algorithm: str
    kid: str | None
    typ: str | None
    raw: bytes


def sign_jws(payload: bytes, key: Key, *, typ: str | None = None, headers: Mapping[str, Any] | None = None) -> str:
    """Sign `payload` and give the compact JWS, with `alg` and `kid` of the key in its header.

    `headers` adds other members; ClaimRefused is raised for those that the signer sets or that change how a token is
    read. KeyRefused is raised for a key that cannot or may not sign.
    """
    if typ is not None and (not _is_typ(typ) or typ == ""):
        raise ClaimRefused("The header member 'typ' is not a media type.", claim="typ")
    head = _plain_head(key, typ) if not headers else _head(key, typ, headers)
    signed = f"{head}.{encode_segment(payload)}"
    return f"{signed}.{encode_segment(key.sign(signed.encode('ascii')))}"


def _head(key: Key, typ: str | None, headers: Mapping[str, Any]) -> str:
    header: dict[str, Any] = {"alg": key.algorithm, "kid": key.kid}
    if typ is not None:
        header["typ"] = typ
    for name, value in headers.items():
        if name in _RESERVED:
            raise ClaimRefused(f"The header member {name!r} cannot be set.", claim=name)
        header[name] = value
    try:
        return encode_segment(encode_json_object(header))
    except JsonRefused as refused:
        raise ClaimRefused(f"The header cannot be written as JSON: {refused}", claim=refused.member or "") from None


def _plain_head(key: Key, typ: str | None) -> str:
    """Give the header that most tokens of an issuer share."""
    heads = key._heads  # noqa: SLF001 # the key's memo belongs to this module
    head = heads.get(typ)
    if head is None:
        head = _head(key, typ, {})
        if len(heads) < _MAX_HEADS:
            heads[typ] = head
    return head


def verify_jws(token: str | bytes, keys: Key | KeySet, *, algorithms: Collection[str] = CURRENT) -> Jws:
    """Check a compact JWS and give what it says.

    `algorithms` narrows what is taken, and is the only way to take the deprecated name EdDSA (RFC 9864). Raises
    MalformedToken, AlgorithmRefused, UnknownKey or BadSignature. The payload is given as it is: whether it is a token
    for this service is for `verify_token` to say.
    """
    if isinstance(algorithms, str):
        raise TypeError("Algorithms are a list of names.")
    route, payload = open_jws(token, keys, algorithms)
    return Jws(parse_json_object(route.header), payload)


def open_jws(
    token: str | bytes, keys: Key | KeySet, algorithms: Collection[str], max_bytes: int = MAX_TOKEN_BYTES
) -> tuple[Route, bytes]:
    """Check form, header and signature, under one of `algorithms`. For `jotgate.core.token` and `.feed`."""
    if type(token) is not str and not isinstance(token, (str, bytes)):
        raise MalformedToken("A token is text.")
    if len(token) > max_bytes:
        raise MalformedToken(f"The token is longer than {max_bytes} bytes.")
    try:
        text = token.encode("ascii") if isinstance(token, str) else token
    except UnicodeEncodeError:
        raise MalformedToken("The token holds other characters than a token can.") from None
    signed, _, tail = text.rpartition(b".")
    head, dot, body = signed.partition(b".")
    if not dot or _DOT in body:
        if text.count(b".") == 4:
            raise MalformedToken("The token is encrypted (JWE), which is not taken.")
        raise MalformedToken("A token has three parts.")
    key_set = keys if type(keys) is KeySet else _as_set(keys)
    route = key_set._routes.get(head)  # noqa: SLF001 # the set's memo belongs to this module
    known = route is not None
    if route is None:
        route = _find_route(head, key_set, algorithms)
    elif route.algorithm not in algorithms:
        raise AlgorithmRefused("The token's algorithm is not allowed here.")
    payload = decode_segment(body)
    route.check(decode_segment(tail), signed)
    if not known and len(head) <= _MAX_ROUTE_BYTES:
        routes = key_set._routes  # noqa: SLF001
        if len(routes) >= _MAX_ROUTES:
            routes.clear()
        routes[head] = route
    return route, payload


def _as_set(keys: object) -> KeySet:
    if not isinstance(keys, (Key, KeySet)):
        raise TypeError("Keys are Key or KeySet objects, never text or bytes.")
    return keys.as_set


def _find_route(head: bytes, keys: KeySet, algorithms: Collection[str]) -> Route:
    header = _parse_header(head)
    if header.algorithm not in algorithms:
        raise AlgorithmRefused("The token's algorithm is not allowed here.")
    key = keys.find(header.algorithm, header.kid)
    if key is None:
        raise UnknownKey("No key is known for the token.")
    if key.algorithm != header.algorithm:
        raise AlgorithmRefused("The token's algorithm is not its key's.")
    return Route(key.check_signature, header.algorithm, header.typ, header.raw)


def _parse_header(head: bytes) -> _Header:
    raw = decode_segment(head)
    try:
        members = parse_json_object(raw)
    except JsonRefused as refused:
        raise MalformedToken(f"The token's header is refused: {refused}") from None
    algorithm = members.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise AlgorithmRefused("The token's algorithm is not one that is known here.")
    if "crit" in members:
        raise MalformedToken("The token demands extensions that are not known here (crit).")
    if "b64" in members:
        raise MalformedToken("The token's payload is not encoded as a token's is (b64).")
    kid = members.get("kid")
    if "kid" in members and (not isinstance(kid, str) or len(kid) > MAX_KID_CHARS):
        raise MalformedToken("The token's kid is not a short text.")
    return _Header(algorithm, kid, _parse_typ(members), raw)


def _parse_typ(members: dict[str, Any]) -> str | None:
    if "typ" not in members:
        return None
    typ = members["typ"]
    if not _is_typ(typ):
        raise MalformedToken("The token's typ is not a media type.")
    return normal_typ(typ)


def _is_typ(typ: object) -> TypeGuard[str]:
    return isinstance(typ, str) and typ.isascii()  # where lower case and upper case pair off


def normal_typ(typ: str) -> str:
    """Give the form in which two `typ` are compared: lower case, without `application/` (RFC 7515 §4.1.9)."""
    typ = typ.lower()
    short = typ.removeprefix("application/")
    return typ if "/" in short else short
