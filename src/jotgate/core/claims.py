"""What a token says and what a verifier demands of it (RFC 7519 §4, RFC 9068 §2.2); knows no key and no signature."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC
from jotgate.core.errors import ClaimRefused, SettingsError, TokenExpired, TokenNotYetValid
from jotgate.core.jws import normal_typ

JsonValue: TypeAlias = Any
"""What JSON can say; the reader of a claim knows which."""

MAX_LEEWAY_S = 60
MAX_LIFETIME_S = 3600
"""The longest life of an access token that jotgate issues, and that its verifiers take unless told otherwise."""

REGISTERED = frozenset(("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "sid", "auth_time"))
"""Claims whose types are checked in every token, and which own claims cannot replace."""

RFC_9068 = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
"""What RFC 9068 §2.2 requires of an access token: `Policy(required=RFC_9068)`."""

_TEXTS = ("iss", "sub", "jti", "client_id", "scope", "sid")
_TIMES = ("exp", "nbf", "iat", "auth_time")
_TIME_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class Policy:
    """What a verifier demands of a token. There are no off-switches: issuer, audience, type and end are always checked.

    - `issuer`, `audience`: compared exactly with `iss` and with one member of `aud`.
    - `algorithms`: the names that are taken, all of them key pairs or all of them HMAC.
    - `typ`: the header's type, compared as RFC 7515 §4.1.9 says.
    - `leeway_s`: 0 to 60 seconds of forgiveness for clocks that differ.
    - `required`: claims that must be there besides `iss`, `aud` and `exp`, and not be empty text.
    - `claims_type`: a msgspec Struct that the claims are read into besides: `claims.custom`.
    - `max_lifetime_s`: the longest `exp - iat` (`exp - now` where a policy does not require `iat`).

    Raises SettingsError, which lists all faults.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ASYMMETRIC
    typ: str = "at+jwt"
    leeway_s: int = 5
    required: tuple[str, ...] = ("sub", "iat")
    claims_type: type[msgspec.Struct] | None = None
    max_lifetime_s: int = MAX_LIFETIME_S
    allowed: frozenset[str] = field(init=False, repr=False, compare=False)
    normal_typ: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be a text that is not empty."
            for name in ("issuer", "audience", "typ")
            if not is_text(getattr(self, name))
        ]
        algorithms, required = _names(self.algorithms), _names(self.required)
        if not algorithms or not all(name in ALGORITHMS for name in algorithms):
            faults.append(f"algorithms must list some of {', '.join(ALGORITHMS)}.")
        elif len({ALGORITHMS[name].symmetric for name in algorithms}) > 1:
            faults.append("algorithms must not mix HMAC with key pairs.")
        if required is None:
            faults.append("required must list names of claims.")
        if type(self.leeway_s) is not int or not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            faults.append(f"leeway_s must be 0 to {MAX_LEEWAY_S} seconds.")
        if type(self.max_lifetime_s) is not int or self.max_lifetime_s <= 0:
            faults.append("max_lifetime_s must be a positive number of seconds.")
        claims_type: object = self.claims_type
        if claims_type is not None and not (isinstance(claims_type, type) and issubclass(claims_type, msgspec.Struct)):
            faults.append("claims_type must be a msgspec Struct.")
        if faults:
            raise SettingsError(faults)
        object.__setattr__(self, "algorithms", algorithms)
        object.__setattr__(self, "required", required)
        object.__setattr__(self, "allowed", frozenset(algorithms or ()))
        object.__setattr__(self, "normal_typ", normal_typ(self.typ))


def is_text(value: object) -> bool:
    """Say whether `value` is text that is not empty."""
    return isinstance(value, str) and value != ""


def _names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return None
    names = tuple(value)
    return names if all(isinstance(name, str) for name in names) else None


class Claims:
    """The claims of a verified token: registered ones as attributes, any as `claims["name"]`. Immutable.

    Times are Unix seconds; fractions of a second, which RFC 7519 allows, are rounded to the token's disadvantage.
    """

    __slots__ = ("_custom", "_members")

    def __init__(self, members: dict[str, Any], custom: object = None) -> None:
        self._members = members
        self._custom = custom

    @property
    def issuer(self) -> str:
        """`iss`: who signed."""
        return str(self._members["iss"])

    @property
    def subject(self) -> str:
        """`sub`: the account, as the issuer names it; empty if a policy does not require it and it is absent."""
        return str(self._members.get("sub", ""))

    @property
    def audience(self) -> tuple[str, ...]:
        """`aud`: whom the token is for."""
        audience = self._members["aud"]
        return (audience,) if isinstance(audience, str) else tuple(audience)

    @property
    def scopes(self) -> frozenset[str]:
        """`scope` (RFC 8693 §4.2): what the token allows."""
        return frozenset(self._members.get("scope", "").split())

    @property
    def session_id(self) -> str | None:
        """`sid`: the session that the token was born in."""
        return self._members.get("sid")

    @property
    def client_id(self) -> str | None:
        """`client_id`: the client that asked for the token."""
        return self._members.get("client_id")

    @property
    def token_id(self) -> str | None:
        """`jti`: the token's own name, unique together with `issuer`."""
        return self._members.get("jti")

    @property
    def issued_at(self) -> int | None:
        """`iat`, rounded down."""
        return self._time("iat", math.floor)

    @property
    def not_before(self) -> int | None:
        """`nbf`, rounded up."""
        return self._time("nbf", math.ceil)

    @property
    def expires_at(self) -> int:
        """`exp`, rounded down."""
        return int(self._members["exp"] // 1)

    @property
    def auth_time(self) -> int | None:
        """`auth_time`: when the person last proved who they are, rounded down."""
        return self._time("auth_time", math.floor)

    @property
    def custom(self) -> JsonValue:
        """The claims as the policy's `claims_type`; None if it has none."""
        return self._custom

    def _time(self, name: str, to_int: Callable[[float], int]) -> int | None:
        value = self._members.get(name)
        return None if value is None else to_int(value)

    def has_scopes(self, *scopes: str) -> bool:
        """Say whether the token allows all of these."""
        return self.scopes.issuperset(scopes)

    def to_dict(self) -> dict[str, Any]:
        """Give all claims as they stand in the token, as a copy."""
        return deepcopy(self._members)

    def get(self, name: str, default: object = None) -> JsonValue:
        """Give any claim, or `default`."""
        return self[name] if name in self._members else default

    def __getitem__(self, name: str) -> JsonValue:
        value = self._members[name]
        return deepcopy(value) if isinstance(value, (dict, list)) else value

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"<Claims iss={self._members.get('iss')!r} sub={self._members.get('sub')!r} jti={self.token_id!r}>"


def check_claims(claims: dict[str, Any], policy: Policy, now: int) -> None:
    """Check types, issuer, audience and times against `policy` at `now` (Unix seconds).

    Raises ClaimRefused, TokenExpired or TokenNotYetValid.
    """
    check_types(claims)
    for name in policy.required:
        if claims.get(name, "") in ("", None):
            raise ClaimRefused(f"The token has no claim {name!r}.", claim=name)
    if claims.get("iss") != policy.issuer:
        raise ClaimRefused("The token is of another issuer.", claim="iss")
    audience = claims.get("aud", ())
    if audience != policy.audience and (isinstance(audience, str) or policy.audience not in audience):
        raise ClaimRefused("The token is for another audience.", claim="aud")
    leeway_s = policy.leeway_s
    expires_at = claims["exp"]
    if now >= expires_at + leeway_s:
        raise TokenExpired("The token has expired.")
    if "nbf" in claims and now < claims["nbf"] - leeway_s:
        raise TokenNotYetValid("The token is not valid yet.")
    if "iat" in claims:
        if now < claims["iat"] - leeway_s:
            raise TokenNotYetValid("The token was issued in the future.")
        lifetime_s = expires_at - claims["iat"]
    else:
        lifetime_s = expires_at - leeway_s - now
    if lifetime_s > policy.max_lifetime_s:
        raise ClaimRefused("The token lives longer than is allowed here.", claim="exp")


def check_types(claims: Mapping[str, Any]) -> None:
    """Check that registered claims that are there have their types (RFC 7519 §4.1), and that `exp` is there.

    Times are finite JSON numbers from 0 to 2^53 - 1; RFC 7519 §2 allows fractions. Raises ClaimRefused.
    """
    for name in _TEXTS:
        if type(claims.get(name, "")) is not str:
            raise ClaimRefused(f"The claim {name!r} is not text.", claim=name)
    audience = claims.get("aud", "")
    if type(audience) is not str and not (
        type(audience) is list and audience and all(type(member) is str for member in audience)
    ):
        raise ClaimRefused("The claim 'aud' is neither text nor a list of texts.", claim="aud")
    if "exp" not in claims:
        raise ClaimRefused("The token has no end ('exp').", claim="exp")
    for name in _TIMES:
        value = claims.get(name, 0)
        if (type(value) is not int and type(value) is not float) or not 0 <= value < _TIME_LIMIT:
            raise ClaimRefused(f"The claim {name!r} is not a time.", claim=name)
