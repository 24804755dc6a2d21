"""What a token says and what is wrong with it, all of it at once; nothing here is ever a reason to trust one.

Unlike the core, which stops at the first fault and shows nothing, this reads on as far as the text allows. It keeps
no token and logs nothing.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from jotgate.cli.text import relative, utc
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.encoding import JsonRefused, decode_segment, parse_json_object
from jotgate.core.errors import MalformedToken

TIMES: Final = ("iat", "nbf", "auth_time", "exp", "updated_at")
_LONGEST_TOKEN: Final = 16_384
_LONGEST_LIFE_S: Final = 3600
_SPOKEN_TYPE: Final = "at+jwt"
# RFC 9068 section 2.2
_REQUIRED: Final = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
_TEXTS: Final = ("iss", "sub", "client_id", "jti", "sid", "scope")
_BROUGHT_KEYS: Final = ("jwk", "jku", "x5c", "x5u")
# Where the algorithm alone fixes the length in bytes; an RSA signature is as long as its key.
_SIGNATURE_SIZES: Final = {"HS256": 32, "ES256": 64, "Ed25519": 64, "EdDSA": 64}


class Finding(Struct, frozen=True):
    """One thing worth telling; ``code`` is the one that jotgate's own error would have, or ``note``."""

    code: str
    detail: str


class Part(Struct, frozen=True):
    """A segment as it came: the decoded bytes (None where it is no base64url) and the JSON object in them, if any."""

    raw: bytes | None = None
    members: dict[str, Any] | None = None


class Inspection(Struct, frozen=True):
    """A token taken apart."""

    token: str
    """The token without what stood around it."""
    header: Part
    payload: Part
    signature: bytes | None
    problems: tuple[Finding, ...]
    """Why a strict verifier would refuse the token, whoever signed it."""
    notes: tuple[Finding, ...]


def inspect(text: str, now: int) -> Inspection:
    """Take a token apart and say what is wrong with it at the time ``now``; the signature is not checked."""
    token, notes = _without_wrapping(text)
    segments = token.split(".")
    header, payload, signature = Part(), Part(), None
    problems = list(_shape_problems(token, len(segments)))
    if problems and len(segments) not in (2, 5):
        return Inspection(token, header, payload, signature, tuple(problems), tuple(notes))
    header, found = _read_part("header", segments[0])
    problems += found
    if len(segments) != 5:
        payload, found = _read_part("payload", segments[1])
        problems += found
    if len(segments) == 3:
        signature, found = _read_base64("signature", segments[2])
        problems += found
    if header.members is not None:
        problems += _header_problems(header.members) if len(segments) != 5 else ()
        notes += _header_notes(header.members)
        if signature is not None:
            problems += _signature_problems(header.members, signature)
    if payload.members is not None:
        problems += _claim_problems(payload.members)
        problems += _time_problems(payload.members, now)
    return Inspection(token, header, payload, signature, tuple(problems), tuple(notes))


def _without_wrapping(text: str) -> tuple[str, list[Finding]]:
    """Forgive what comes along when a person copies a token: a header's name, ``Bearer``, quotes, line ends."""
    token = text.strip()
    match = re.fullmatch(r"""(?:authorization\s*:\s*)?(?:bearer\s+)?["']?([^"']*)["']?""", token, re.IGNORECASE)
    bare = "".join((match[1] if match else token).split())
    if bare == token:
        return bare, []
    return bare, [Finding("note", "what stood around the token (Bearer, quotes, white space) was left out")]


def _shape_problems(token: str, count: int) -> Iterator[Finding]:
    if not token:
        yield Finding("malformed_token", "there is no token: the input is empty")
    elif token.startswith("jgr_"):
        yield Finding(
            "malformed_token",
            "this is a jotgate refresh token, not a JWT: it is opaque, only its server can read it; treat it like a "
            "password and log out if anyone else has seen it",
        )
    elif token.startswith("{"):
        yield Finding("malformed_token", "this is a JWS in JSON form; only the compact form (a.b.c) is a JWT")
    elif count == 5:
        yield Finding("malformed_token", "this is an encrypted token (JWE, five parts); jotgate reads signed ones only")
    elif count != 3:
        parts = "1 part" if count == 1 else f"{count} parts"
        yield Finding("malformed_token", f"a signed token has three parts joined by dots, this text has {parts}")
    elif len(token) > _LONGEST_TOKEN:
        yield Finding(
            "malformed_token", f"the token is {len(token)} characters long; at most {_LONGEST_TOKEN} are read"
        )


def _read_part(name: str, segment: str) -> tuple[Part, list[Finding]]:
    raw, problems = _read_base64(name, segment)
    if raw is None:
        return Part(), problems
    try:
        return Part(raw, parse_json_object(raw)), problems
    except JsonRefused as error:
        problems.append(Finding("malformed_token", f"the {name} is refused ({error.reason}): {error}"))
        return Part(raw), problems


def _read_base64(name: str, segment: str) -> tuple[bytes | None, list[Finding]]:
    try:
        return decode_segment(segment), []
    except MalformedToken:
        pass
    lax = segment.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(lax + "=" * (-len(lax) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None, [Finding("malformed_token", f"the {name} is not base64url")]
    why = "not in its canonical base64url form (padding, + or /, or stray bits at its end)"
    return raw, [Finding("malformed_token", f"the {name} is {why}; strict verifiers refuse it")]


def _header_problems(header: Mapping[str, Any]) -> Iterator[Finding]:
    algorithm = header.get("alg")
    if "alg" not in header:
        yield Finding("algorithm_refused", "the header names no algorithm (alg)")
    elif not isinstance(algorithm, str):
        yield Finding("algorithm_refused", "alg is not a text")
    elif algorithm.lower() == "none":
        yield Finding("algorithm_refused", f"alg is {algorithm}: the token is unsigned, anyone could have written it")
    elif algorithm not in ALGORITHMS:
        yield Finding("algorithm_refused", "alg is none of those that jotgate verifies: " + ", ".join(ALGORITHMS))
    spoken = header.get("typ")
    if "typ" not in header:
        yield Finding("claim_refused", f"the header has no typ; an access token says {_SPOKEN_TYPE} (RFC 9068)")
    elif not isinstance(spoken, str):
        yield Finding("claim_refused", "typ is not a text")
    elif spoken.lower().removeprefix("application/") != _SPOKEN_TYPE:
        yield Finding("claim_refused", f"typ is not {_SPOKEN_TYPE}: this is no access token by RFC 9068")
    kid = header.get("kid")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= 256):
        yield Finding("malformed_token", "kid is not a text of 1 to 256 characters")
    if "crit" in header:
        yield Finding("malformed_token", "crit demands extensions, and jotgate has none")
    if "b64" in header:
        yield Finding("malformed_token", "b64 asks for an unencoded payload (RFC 7797), which is never accepted")


def _header_notes(header: Mapping[str, Any]) -> Iterator[Finding]:
    brought = [name for name in _BROUGHT_KEYS if name in header]
    if brought:
        yield Finding("note", f"the token brings its own key ({', '.join(brought)}): no verifier may trust that")
    if str(header.get("alg")).startswith("HS"):
        yield Finding("note", "HS algorithms use one shared secret: whoever can check this token can also forge it")
    if "kid" not in header:
        yield Finding("note", "the header has no kid, so a verifier cannot tell which key it needs")


def _signature_problems(header: Mapping[str, Any], signature: bytes) -> Iterator[Finding]:
    size = _SIGNATURE_SIZES.get(str(header.get("alg")))
    if not signature:
        yield Finding("bad_signature", "the signature is empty")
    elif size is not None and len(signature) != size:
        yield Finding(
            "bad_signature", f"the signature is {len(signature)} bytes long, {header['alg']} makes one of {size}"
        )


def _claim_problems(claims: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [name for name in _REQUIRED if name not in claims]
    if missing:
        yield Finding("claim_refused", f"an access token must have {_listed(missing)} (RFC 9068)")
    for name in _TEXTS:
        if name in claims and not isinstance(claims[name], str):
            yield Finding("claim_refused", f"{name} is not a text")
    audience = claims.get("aud", "-")
    names = [audience] if isinstance(audience, str) else audience
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        yield Finding("claim_refused", "aud is neither a name nor a list of names")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _time_problems(claims: Mapping[str, Any], now: int) -> Iterator[Finding]:
    times = {name: claims[name] for name in TIMES if name in claims}
    for name, value in times.items():
        if not is_time(value):
            yield Finding("claim_refused", f"{name} is not a time (seconds since 1970 as a number)")
    issued_at, starts_at, ends_at = (
        times[name] if is_time(times.get(name)) else None for name in ("iat", "nbf", "exp")
    )
    if ends_at is not None and ends_at <= now:
        yield Finding("token_expired", f"expired {relative(int(ends_at), now)}")
    if starts_at is not None and starts_at > now:
        yield Finding("token_not_yet_valid", f"not valid before {utc(int(starts_at))}, {relative(int(starts_at), now)}")
    if issued_at is not None and issued_at > now:
        yield Finding("token_not_yet_valid", f"issued in the future, {relative(int(issued_at), now)}")
    if issued_at is not None and ends_at is not None and ends_at - issued_at > _LONGEST_LIFE_S:
        minutes = int(ends_at - issued_at) // 60
        yield Finding("claim_refused", f"lives for {minutes} min; jotgate's verifiers accept 60 at most")


def is_time(value: object) -> bool:
    """Whether the value is a NumericDate (RFC 7519 section 2) within the calendar."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return False
    try:
        utc(int(value))
    except ValueError:
        return False
    return True
