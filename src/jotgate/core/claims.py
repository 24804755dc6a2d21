"""What a token says and what a verifier demands of it (RFC 7519 §4, RFC 9068 §2.2); knows no key and no signature."""

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import force_setattr

from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC
from jotgate.core.errors import ClaimRefused, SettingsError, TokenExpired, TokenNotYetValid
from jotgate.core.jws import normal_typ

JsonValue: TypeAlias = Any
"""What JSON can say; the reader of a claim knows which."""

MAX_LEEWAY_S = 60
MAX_LIFETIME_S = 3600
"""The longest life of an access token that jotgate issues, and that its verifiers take unless told otherwise."""

RFC_9068 = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
"""What RFC 9068 §2.2 requires of an access token: `Policy(required=RFC_9068)`."""

# NumericDate (RFC 7519 §2): any JSON number, fractions included; what no date is, is refused and not taken as absent.
_Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=2**53)]
_Audience: TypeAlias = str | Annotated[list[str], msgspec.Meta(min_length=1)]


class Registered(msgspec.Struct, frozen=True):
    """The claims whose meaning is fixed (RFC 7519 §4.1, RFC 9068 §2.2, OpenID Connect's `sid`), with their types."""

    exp: _Time
    iss: str | UnsetType = UNSET
    sub: str | UnsetType = UNSET
    aud: _Audience | UnsetType = UNSET
    iat: _Time | UnsetType = UNSET
    nbf: _Time | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    sid: str | UnsetType = UNSET
    auth_time: _Time | UnsetType = UNSET


REGISTERED = frozenset(Registered.__struct_fields__)
"""Claims that own claims cannot replace."""

_TYPES = {"exp": "a time", "iat": "a time", "nbf": "a time", "auth_time": "a time", "aud": "text or a list of texts"}


def read_registered(members: dict[str, Any]) -> Registered:
    """Check the types of registered claims, and that `exp` is there. Raises ClaimRefused.

    Times are finite JSON numbers from 0 to 2^53 - 1; RFC 7519 §2 allows fractions.
    """
    try:
        return msgspec.convert(members, Registered)
    except msgspec.ValidationError as error:
        if "exp" not in members:
            raise ClaimRefused("The token has no end ('exp').", claim="exp") from None
        # msgspec ends its sentence with the path, such as `$.aud[0]`, and says no value.
        claim = str(error).rpartition("`$.")[2].rstrip("`").partition("[")[0]
        raise ClaimRefused(f"The claim {claim!r} is not {_TYPES.get(claim, 'text')}.", claim=claim) from None


class Policy(msgspec.Struct, frozen=True):
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
        # Settled here once, so that a check need not: lists become tuples, a type its form for comparing.
        force_setattr(self, "algorithms", algorithms)
        force_setattr(self, "required", required)
        force_setattr(self, "typ", normal_typ(self.typ))


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

    __slots__ = ("_custom", "_members", "_registered")

    def __init__(self, members: dict[str, Any], registered: Registered, custom: object = None) -> None:
        self._members = members
        self._registered = registered
        self._custom = custom

    @property
    def issuer(self) -> str:
        """`iss`: who signed."""
        return self._registered.iss or ""

    @property
    def subject(self) -> str:
        """`sub`: the account, as the issuer names it; empty if a policy does not require it and it is absent."""
        return self._registered.sub or ""

    @property
    def audience(self) -> tuple[str, ...]:
        """`aud`: whom the token is for."""
        audience = self._registered.aud
        return (audience,) if isinstance(audience, str) else tuple(audience or ())

    @property
    def scopes(self) -> frozenset[str]:
        """`scope` (RFC 8693 §4.2): what the token allows."""
        return frozenset((self._registered.scope or "").split())

    @property
    def session_id(self) -> str | None:
        """`sid`: the session that the token was born in."""
        return self._registered.sid or None

    @property
    def client_id(self) -> str | None:
        """`client_id`: the client that asked for the token."""
        return self._registered.client_id or None

    @property
    def token_id(self) -> str | None:
        """`jti`: the token's own name, unique together with `issuer`."""
        return self._registered.jti or None

    @property
    def issued_at(self) -> int | None:
        """`iat`, rounded down."""
        issued_at = self._registered.iat
        return None if issued_at is UNSET else math.floor(issued_at)

    @property
    def not_before(self) -> int | None:
        """`nbf`, rounded up."""
        not_before = self._registered.nbf
        return None if not_before is UNSET else math.ceil(not_before)

    @property
    def expires_at(self) -> int:
        """`exp`, rounded down."""
        return math.floor(self._registered.exp)

    @property
    def auth_time(self) -> int | None:
        """`auth_time`: when the person last proved who they are, rounded down."""
        auth_time = self._registered.auth_time
        return None if auth_time is UNSET else math.floor(auth_time)

    @property
    def custom(self) -> JsonValue:
        """The claims as the policy's `claims_type`; None if it has none."""
        return self._custom

    def has_scopes(self, *scopes: str) -> bool:
        """Say whether the token allows all of these."""
        return self.scopes.issuperset(scopes)

    def to_dict(self) -> dict[str, Any]:
        """Give all claims as they stand in the token, as a copy."""
        return {name: _copied(value) for name, value in self._members.items()}

    def get(self, name: str, default: object = None) -> JsonValue:
        """Give any claim, or `default`."""
        return self[name] if name in self._members else default

    def __getitem__(self, name: str) -> JsonValue:
        return _copied(self._members[name])

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"<Claims iss={self.issuer!r} sub={self.subject!r} jti={self.token_id!r}>"


def _copied(value: JsonValue) -> JsonValue:
    """Give a value that its receiver may change: the claims themselves are shared."""
    if isinstance(value, dict):
        return {name: _copied(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_copied(member) for member in value]
    return value


def check_claims(members: dict[str, Any], policy: Policy, now: int) -> Registered:
    """Check types, issuer, audience and times against `policy` at `now` (Unix seconds).

    `exp` counts without its fraction of a second. Raises ClaimRefused, TokenExpired or TokenNotYetValid.
    """
    registered = read_registered(members)
    for name in policy.required:
        if not members.get(name) and members.get(name) in _NOTHING:
            raise ClaimRefused(f"The token has no claim {name!r}.", claim=name)
    if registered.iss != policy.issuer:
        raise ClaimRefused("The token is of another issuer.", claim="iss")
    audience = registered.aud
    if audience != policy.audience and (type(audience) is not list or policy.audience not in audience):
        raise ClaimRefused("The token is for another audience.", claim="aud")
    leeway_s = policy.leeway_s
    expires_at = int(registered.exp)
    if now >= expires_at + leeway_s:
        raise TokenExpired("The token has expired.")
    not_before = registered.nbf
    if not_before is not UNSET and now < not_before - leeway_s:
        raise TokenNotYetValid("The token is not valid yet.")
    issued_at = registered.iat
    if issued_at is UNSET:
        issued_at = now + leeway_s
    elif now < issued_at - leeway_s:
        raise TokenNotYetValid("The token was issued in the future.")
    if expires_at - issued_at > policy.max_lifetime_s:
        raise ClaimRefused("The token lives longer than is allowed here.", claim="exp")
    return registered


_NOTHING = (None, "")
