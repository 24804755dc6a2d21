"""The cases where jotgate takes what a peer library refuses, each with its rule; DIFFERENCES.md gives the reasons.

A rule looks at what was judged besides at what the peer said, so that it explains no more than it claims to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jotgate import Key, KeyRefused, KeySet
from tests.fuzz.mutation import segment
from tests.fuzz.peers import NOT_READ

Json: TypeAlias = Any


class Rule(NamedTuple):
    """`holds` is given the peer's reason as a match, and the header (or the JWK, or the JWK set) that ours took."""

    name: str
    peer: str
    kind: str
    reason: str
    holds: Callable[[re.Match[str], bytes], bool]


def _has_wrong(*names: str) -> Callable[[re.Match[str], bytes], bool]:
    """The member that the peer names is there, and is one that ours never looks at."""
    return lambda match, raw: match["name"] in names and match["name"] in json.loads(raw)


def _ignorable(match: re.Match[str], raw: bytes) -> bool:
    """No member that the peer does not know is one that changes what a JWS means."""
    read = {"alg", "kid", "typ", "crit", "b64"}
    known = {"jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "cty"}
    return bool(set(json.loads(raw)) - read - known)


def _of_another_type(match: re.Match[str], raw: bytes) -> bool:
    """The member that the peer names has a meaning for other key types only."""
    members = json.loads(raw)
    own = {"oct": {"k"}, "RSA": {"n", "d", "p", "oth"}, "EC": {"d"}, "OKP": {"d"}, "AKP": set()}[members["kty"]]
    return match["name"] in members and match["name"] not in own


def _foreign_operations(match: re.Match[str], raw: bytes) -> bool:
    """The key may verify, and something besides that no signature key does; and `use` does not contradict that."""
    members = json.loads(raw)
    operations = set(members.get("key_ops", ()))
    return "use" not in members and "verify" in operations and bool(operations - {"sign", "verify"})


def _of_the_other_half(match: re.Match[str], raw: bytes) -> bool:
    """A private key that may also verify, or a public one that may also sign; and nothing but that."""
    members = json.loads(raw)
    operations = set(members.get("key_ops", ()))
    return operations <= {"sign", "verify"} and ("verify" if "d" in members else "sign") in operations


def _signs_only(match: re.Match[str], raw: bytes) -> bool:
    """A private key that may sign and not verify."""
    members = json.loads(raw)
    return members.get("key_ops") == ["sign"] and "priv" in members


def _other_operations(match: re.Match[str], raw: bytes) -> bool:
    """The key may verify (or sign), and do something that no standard names; and `use` does not contradict that."""
    registered = {"sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"}
    members = json.loads(raw)
    operations = set(members.get("key_ops", ()))
    return "use" not in members and bool(operations & {"sign", "verify"}) and bool(operations - registered)


def _skips(match: re.Match[str], raw: bytes) -> bool:
    """Ours has skipped an entry, which the peer may have stumbled over."""
    return bool(KeySet.from_jwks(raw).skipped)


def _other_ext(match: re.Match[str], raw: bytes) -> bool:
    """A key has a member `ext` that is neither true nor false."""
    entries = [entry for entry in json.loads(raw)["keys"] if type(entry) is dict]
    return any(type(entry.get("ext", True)) is not bool for entry in entries)


def _holds_no_object(match: re.Match[str], raw: bytes) -> bool:
    return not all(type(entry) is dict for entry in json.loads(raw)["keys"])


RULES = (
    Rule("unknown-header-member", "joserfc", "token", r"UnsupportedHeaderError", _ignorable),
    Rule(
        "untrusted-header-member",
        "joserfc",
        "token",
        r"InvalidHeaderValueError: .*'(?P<name>[^']+)' in header must be",
        _has_wrong("jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "cty"),
    ),
    Rule("long-header", "joserfc", "token", r"ExceededSizeError.*512 bytes", lambda _, raw: len(segment(raw)) > 512),
    Rule(
        "unread-key-member",
        "joserfc",
        "key",
        r"KeyParameterError: .*'(?P<name>[^']+)' must be",
        _has_wrong("x5u", "x5c", "x5t", "x5t#S256"),
    ),
    Rule(
        "unread-key-member",
        "jose",
        "key",
        r'TypeError: "(?P<name>ext)" \(Extractable\) Parameter must be a boolean',
        _has_wrong("ext"),
    ),
    Rule(
        "member-of-another-key-type",
        "jose",
        "key",
        r"ERR_INVALID_ARG_TYPE: .*'(?P<name>oth|ext|k|n|d|p)' of 'JsonWebKey'",
        _of_another_type,
    ),
    Rule("key-ops-of-the-other-half", "jose", "key", r"12: Unsupported key usage for an? ", _of_the_other_half),
    Rule("other-key-ops", "joserfc", "key", r"KeyParameterError: .*'key_ops' must be one of", _other_operations),
    Rule("foreign-key-ops", "jose", "key", r"12: Unsupported key usage for an? ", _foreign_operations),
    Rule(
        "member-of-another-key-type",
        "jwcrypto",
        "key",
        r"KeyError: \"Cannot set '(?P<name>oth|k|n|d|p)' on 'AKP' key type\"",
        _of_another_type,
    ),
    Rule(
        "private-key-that-may-sign",
        "jwcrypto",
        "key",
        r'InvalidJWKOperation: Invalid operation requested: "Verify ',
        _signs_only,
    ),
    Rule("broken-entry", "joserfc", "set", NOT_READ, _skips),
    Rule("broken-entry", "PyJWT", "set", f"{NOT_READ}(TypeError: unhashable type|NotImplementedError)", _skips),
    Rule("unread-key-member", "jose", "set", "ERR_JWKS_NO_MATCHING_KEY", _other_ext),
    Rule(
        "entry-that-is-no-object",
        "jose",
        "set",
        f"{NOT_READ}ERR_JWKS_INVALID: JSON Web Key Set malformed",
        _holds_no_object,
    ),
)


def explain(peer: str, kind: str, reason: str, judged: bytes) -> str | None:
    """The name of the rule for a case that ours takes and `peer` refuses; None if there is none."""
    for rule in RULES:
        if rule.peer == peer and rule.kind == kind:
            match = re.match(rule.reason, reason)
            if match is not None and rule.holds(match, judged):
                return rule.name
    if kind == "set":  # refused for one of the keys that ours took
        told = reason.removeprefix(NOT_READ)
        rules = [
            explain(peer, "key", told, json.dumps(jwk).encode()) for jwk in json.loads(judged)["keys"] if _read(jwk)
        ]
        return next((rule for rule in rules if rule is not None), None)
    return None


def _read(jwk: Json) -> bool:
    try:
        Key.from_jwk(jwk)
    except KeyRefused:
        return False
    return True
