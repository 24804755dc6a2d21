"""JSON Web Tokens (RFC 7519): claims in, token out; token in, claims that may be believed out. Time is an argument."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from jotgate.core.claims import Claims, Policy, check_claims, check_types
from jotgate.core.encoding import MAX_JSON_DEPTH, JsonRefused, parse_json_object
from jotgate.core.errors import ClaimRefused, MalformedToken
from jotgate.core.jwk import Key, KeySet
from jotgate.core.jws import MAX_TOKEN_BYTES, open_jws, sign_jws


def issue_token(claims: Mapping[str, Any], key: Key, *, typ: str = "at+jwt") -> str:
    """Sign `claims` as a JWT.

    `exp` must be there, and registered claims must have their types: what no strict verifier takes is not signed.
    Raises ClaimRefused for claims that are not JSON, not well typed or too large, KeyRefused for a key that cannot
    sign.
    """
    members = dict(claims)
    for name, value in members.items():
        _check_json(value, name)
    if type(members.get("aud")) is tuple:
        members["aud"] = list(members["aud"])
    check_types(members)
    try:
        payload = msgspec.json.encode(members)
    except UnicodeEncodeError:
        raise ClaimRefused("A claim holds text that is not Unicode.", claim="") from None
    token = sign_jws(payload, key, typ=typ)
    if len(token) > MAX_TOKEN_BYTES:
        raise ClaimRefused(f"The token would be longer than {MAX_TOKEN_BYTES} bytes.", claim="")
    return token


def _check_json(value: object, claim: object, depth: int = 2) -> None:
    """Refuse what msgspec would turn into something else (NaN, bytes, dates) or what verifiers would not read."""
    if not isinstance(claim, str):
        raise ClaimRefused("A claim's name is text.", claim="")
    if depth > MAX_JSON_DEPTH:
        raise ClaimRefused(f"The claim {claim!r} nests too deeply.", claim=claim)
    kind = type(value)
    if kind is dict and isinstance(value, dict):
        for name, member in value.items():
            if type(name) is not str:
                raise ClaimRefused(f"The claim {claim!r} has a member whose name is not text.", claim=claim)
            _check_json(member, claim, depth + 1)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _check_json(member, claim, depth + 1)
    elif kind not in (str, int, bool, float, type(None)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ClaimRefused(f"The claim {claim!r} is not a JSON value.", claim=claim)


def verify_token(token: str | bytes, keys: Key | KeySet, policy: Policy, now: int) -> Claims:
    """Check a token against keys and policy at `now` (Unix seconds) and give its claims.

    Raises a TokenError and nothing else, whatever `token` is: MalformedToken, AlgorithmRefused, UnknownKey,
    BadSignature, TokenExpired, TokenNotYetValid or ClaimRefused. Revocation is for `jotgate.Verifier`.
    """
    route, payload = open_jws(token, keys, policy.allowed)
    if route.typ != policy.normal_typ:
        raise ClaimRefused("The token is of another type ('typ').", claim="typ")
    try:
        members = parse_json_object(payload)
    except JsonRefused as refused:
        raise MalformedToken(f"The token's claims are refused: {refused}") from None
    check_claims(members, policy, now)
    if policy.claims_type is None:
        return Claims(members)
    try:
        custom = msgspec.convert(members, policy.claims_type)
    except msgspec.ValidationError:
        raise ClaimRefused("The token's claims are not of the type that is demanded here.", claim="") from None
    return Claims(members, custom)
