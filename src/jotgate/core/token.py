"""JSON Web Tokens (RFC 7519): claims in, token out; token in, claims that may be believed out. Time is an argument."""

import warnings
from collections.abc import Mapping
from typing import Any

from jotgate.core.claims import Claims, Policy, check_claims, read_custom, read_registered
from jotgate.core.encoding import JsonRefused, encode_json_object, parse_json_object
from jotgate.core.errors import ClaimRefused, MalformedToken
from jotgate.core.jwk import Key, KeySet
from jotgate.core.jws import MAX_TOKEN_BYTES, open_jws, sign_jws
from jotgate.core.lint import LintRules, lint_claims

DEFAULT_LINT = LintRules()
"""The rules that apply unless others are given."""


def issue_token(
    claims: Mapping[str, Any], key: Key, *, typ: str = "at+jwt", lint: LintRules = DEFAULT_LINT, stacklevel: int = 1
) -> str:
    """Sign `claims` as a JWT.

    `exp` must be there, and registered claims must have their types: what no strict verifier takes is not signed. Nor
    is what `lint` refuses; what it warns of becomes a `ClaimsWarning`, whose place in the code `stacklevel` moves up
    the stack as that of `warnings.warn` does. Raises ClaimRefused for claims that are not JSON, not well typed, too
    large or not fit for a token, KeyRefused for a key that cannot sign.
    """
    members = dict(claims)
    try:
        payload = encode_json_object(members)
    except JsonRefused as refused:
        raise ClaimRefused(f"The claims cannot be written as JSON: {refused}", claim=refused.member or "") from None
    read_registered(members)
    for warning in lint_claims(members, len(payload), lint):
        warnings.warn(warning, stacklevel=stacklevel + 1)
    token = sign_jws(payload, key, typ=typ)
    if len(token) > MAX_TOKEN_BYTES:
        raise ClaimRefused(f"The token would be longer than {MAX_TOKEN_BYTES} bytes.", claim="")
    return token


def verify_token(token: str | bytes, keys: Key | KeySet, policy: Policy, now: int) -> Claims:
    """Check a token against keys and policy at `now` (Unix seconds) and give its claims.

    Raises a TokenError and nothing else, whatever `token` is: MalformedToken, AlgorithmRefused, UnknownKey,
    BadSignature, TokenExpired, TokenNotYetValid or ClaimRefused. Revocation is for `jotgate.Verifier`.
    """
    route, payload = open_jws(token, keys, policy.algorithms)
    if route.typ != policy.typ and not policy.takes_typ(route.typ):
        raise ClaimRefused("The token is of another type ('typ').", claim="typ")
    usual = policy.read_usual(payload, now)
    if usual is not None:
        return usual
    try:
        members = parse_json_object(payload)
    except JsonRefused as refused:
        raise MalformedToken(f"The token's claims are refused: {refused}") from None
    registered = check_claims(members, policy, now)
    if policy.claims_type is None:
        return Claims(members, registered)
    return Claims(members, registered, read_custom(members, policy.claims_type))
