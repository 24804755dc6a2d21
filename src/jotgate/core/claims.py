"""What a token says and what a verifier demands of it (RFC 7519 §4, RFC 9068 §2.2); knows no key and no signature."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import force_setattr

from jotgate.core import presets
from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC
from jotgate.core.errors import ClaimRefused, SettingsError, TokenExpired, TokenNotYetValid
from jotgate.core.jws import normal_typ
from jotgate.core.presets import ABSENT, Absent

JsonValue: TypeAlias = Any
"""What JSON can say; the reader of a claim knows which."""

MAX_LEEWAY_S = 60
MAX_LIFETIME_S = 3600
"""The longest life of an access token that jotgate issues, and that its verifiers take unless told otherwise."""

RFC_9068 = ("iss", "exp", "aud", "sub", "client_id", "iat", "jti")
"""What RFC 9068 §2.2 requires of an access token: `Policy(required=RFC_9068)`."""

MULTI_FACTOR = "mfa"
"""The method (RFC 8176 §2) of a login that took two factors, or a passkey that verified its user."""
AAL1, AAL2 = "aal1", "aal2"
"""What `acr` says of a login by any methods, and of one with `MULTI_FACTOR` among them."""

# NumericDate (RFC 7519 §2): any JSON number, fractions included; what no date is, is refused and not taken as absent.
_Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=2**53)]
_Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
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
    acr: str | UnsetType = UNSET
    amr: list[str] | UnsetType = UNSET


REGISTERED = frozenset(Registered.__struct_fields__)
"""Claims that own claims cannot replace."""

_TYPES = {
    **dict.fromkeys(("exp", "iat", "nbf", "auth_time"), "a time"),
    "aud": "text or a list of texts",
    "amr": "a list of texts",
}


def read_registered(members: dict[str, Any]) -> Registered:
    """Check the types of registered claims, and that `exp` is there. Raises ClaimRefused.

    Times are finite JSON numbers from 0 to 2^53 - 1; RFC 7519 §2 allows fractions.
    """
    try:
        return _convert(members, Registered)
    except msgspec.ValidationError as error:
        raise _wrong_type(members, error) from None


_convert = msgspec.convert


def _wrong_type(members: dict[str, Any], error: msgspec.ValidationError) -> ClaimRefused:
    if "exp" not in members:
        return ClaimRefused("The token has no end ('exp').", claim="exp")
    # msgspec ends its sentence with the path, such as `$.aud[0]`, and says no value.
    claim = str(error).rpartition("`$.")[2].rstrip("`").partition("[")[0]
    return ClaimRefused(f"The claim {claim!r} is not {_TYPES.get(claim, 'text')}.", claim=claim)


_Values: TypeAlias = tuple[tuple[str, frozenset[str] | type[str]], ...]


class Policy(msgspec.Struct, frozen=True, dict=True):  # a __dict__, for what it keeps prepared
    """What a verifier demands of a token. There are no off-switches: issuer, audience, type and end are always checked.

    - `issuer`: compared exactly with `iss`. `issuer_aliases`: other spellings of the same issuer's name.
    - `audience`: the name of this service, compared exactly with one member of `aud`. `audience_aliases`: its other
      names. `audience_claim`: the claim in which an issuer without `aud` puts it instead, as one text.
    - `algorithms`: the names that are taken, all of them key pairs or all of them HMAC.
    - `typ`: the header's type, compared as RFC 7515 §4.1.9 says; or several, with `ABSENT` among them for the headers
      of an issuer that sends none. Any other type is refused.
    - `leeway_s`: 0 to 60 seconds of forgiveness for clocks that differ.
    - `required`: claims that must be there besides issuer, audience and `exp`, and not be empty text.
    - `forbidden`: claims that must not be there.
    - `claim_values`: claims that must be there with that value, or with one of those, or (`str`) with any text that is
      not empty: `{"token_use": "access", "azp": str}`.
    - `scope_claim`: the claim that `Claims.scopes` reads.
    - `claims_type`: a msgspec Struct that the claims are read into besides: `claims.custom`.
    - `max_lifetime_s`: the longest `exp - iat` (`exp - now` where a policy does not require `iat`).

    The issuer's public keys may lack `alg` (Entra's do): `KeySet.from_jwks(jwks, algorithms=policy.algorithms)`.

    Own claims come back checked in a type of one's own:

    >>> import msgspec
    >>> from jotgate import Policy, generate_key, issue_token, verify_token
    >>> class Tenant(msgspec.Struct, frozen=True):
    ...     tenant: str
    ...     seats: int = 1
    >>> policy = Policy(issuer="https://auth.example.com", audience="api", claims_type=Tenant)
    >>> key = generate_key("ES256")
    >>> claims = {"iss": "https://auth.example.com", "aud": "api", "sub": "ada", "iat": 1000, "exp": 1300}
    >>> token = issue_token({**claims, "tenant": "acme", "seats": 3}, key)
    >>> verify_token(token, key.public, policy, now=1000).custom
    Tenant(tenant='acme', seats=3)
    >>> token = issue_token({**claims, "tenant": "acme", "seats": "three"}, key)
    >>> verify_token(token, key.public, policy, now=1000)
    Traceback (most recent call last):
    jotgate.core.errors.ClaimRefused: The claim 'seats' is not of the type that is demanded here.

    A Struct with `forbid_unknown_fields=True` refuses own claims that it does not name; registered ones (RFC 7519
    §4.1 and those of RFC 9068 §2.2) are never unknown.

    Raises SettingsError, which lists all faults.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ASYMMETRIC
    typ: str | Absent | Iterable[str | Absent] = "at+jwt"
    leeway_s: int = 5
    required: tuple[str, ...] = ("sub", "iat")
    claims_type: type[msgspec.Struct] | None = None
    max_lifetime_s: int = MAX_LIFETIME_S
    issuer_aliases: tuple[str, ...] = ()
    audience_aliases: tuple[str, ...] = ()
    audience_claim: str = "aud"
    forbidden: tuple[str, ...] = ()
    claim_values: Mapping[str, str | Iterable[str] | type[str]] | _Values = ()
    scope_claim: str = "scope"

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be a text that is not empty."
            for name in ("issuer", "audience", "audience_claim", "scope_claim")
            if not is_text(getattr(self, name))
        ]
        typ = _types(self.typ)
        if typ is None:
            faults.append("typ must be a text that is not empty, ABSENT, or several of them.")
        algorithms, required = _names(self.algorithms), _names(self.required)
        if not algorithms or not all(name in ALGORITHMS for name in algorithms):
            faults.append(f"algorithms must list some of {', '.join(ALGORITHMS)}.")
        elif len({ALGORITHMS[name].symmetric for name in algorithms}) > 1:
            faults.append("algorithms must not mix HMAC with key pairs.")
        if required is None:
            faults.append("required must list names of claims.")
        issuers, audiences = _names(self.issuer_aliases), _names(self.audience_aliases)
        for name, aliases in (("issuer_aliases", issuers), ("audience_aliases", audiences)):
            if aliases is None or not all(aliases):
                faults.append(f"{name} must list texts that are not empty.")
        forbidden, claim_values = _names(self.forbidden), _values(self.claim_values)
        if forbidden is None:
            faults.append("forbidden must list names of claims.")
        if claim_values is None:
            faults.append("claim_values must map names of claims to a text that is not empty, or several, or to str.")
        if type(self.leeway_s) is not int or not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            faults.append(f"leeway_s must be 0 to {MAX_LEEWAY_S} seconds.")
        if type(self.max_lifetime_s) is not int or self.max_lifetime_s <= 0:
            faults.append("max_lifetime_s must be a positive number of seconds.")
        faults += _type_faults(self.claims_type)
        if faults:
            raise SettingsError(faults)
        # Settled here once, so that a check need not: lists become tuples, a type its form for comparing.
        for name, value in (
            ("typ", typ),
            ("algorithms", algorithms),
            ("required", required),
            ("issuer_aliases", issuers),
            ("audience_aliases", audiences),
            ("forbidden", forbidden),
            ("claim_values", claim_values),
        ):
            force_setattr(self, name, value)

    def takes_typ(self, typ: str | None) -> bool:
        """Say whether a header of this type (None: without one) is demanded, in the form of `normal_typ`."""
        if isinstance(self.typ, str):
            return typ == self.typ
        return (ABSENT if typ is None else typ) in self.typ  # type: ignore[operator] # a frozenset once it is settled

    @cached_property
    def read_usual(self) -> "Callable[[bytes, int], Claims | None]":
        """`read_usual(payload, now)`: the claims of a usual payload, at once; None for any other. For `verify_token`.

        Of what is not usual, `check_claims` decides, and names the fault. Usual is what has registered claims only, in
        compact JSON without escapes and with whole seconds, and is good. Such a text has no claim twice: written again
        it would be shorter. Without escapes, fractions and exponents no value has a spelling shorter than the one that
        it is written in, and of equal claims one is left.
        """
        return _usual_reader(self)

    @classmethod
    def auth0(
        cls,
        *,
        domain: str,
        audience: str | Iterable[str],
        algorithms: tuple[str, ...] = presets.RS256,
        leeway_s: int = 5,
        claims_type: type[msgspec.Struct] | None = None,
        max_lifetime_s: int = presets.DAY_S,
    ) -> "Policy":
        """Access tokens of an Auth0 tenant for the API with the identifier `audience`.

        `domain` is the tenant's or the custom domain, as it stands in `iss`. Both token profiles are taken. They live
        24 hours unless the API's settings say otherwise (30 days at most). An ID token names a client as its audience,
        so never register an API under a client's id. An API whose tokens are signed by HMAC shares the issuer's
        secret, and would be an issuer itself: no preset takes such. Sources: "Access Token Profiles",
        https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles, and "Update Access Token Lifetime",
        https://auth0.com/docs/secure/tokens/access-tokens/update-access-token-lifetime.
        """
        shape = presets.auth0(domain=domain, audience=audience, algorithms=algorithms, max_lifetime_s=max_lifetime_s)
        return cls(**shape, leeway_s=leeway_s, claims_type=claims_type)

    @classmethod
    def cognito(
        cls,
        *,
        region: str,
        user_pool_id: str,
        client_id: str | Iterable[str],
        token_use: str = "access",  # noqa: S107 # not a password
        audience: str | Iterable[str] | None = None,
        leeway_s: int = 5,
        claims_type: type[msgspec.Struct] | None = None,
        max_lifetime_s: int = presets.DAY_S,
    ) -> "Policy":
        """Tokens of an Amazon Cognito user pool for one app client, or several.

        Access tokens have no `aud`: the client stands in `client_id`. Where the app asks for tokens bound to a
        resource they do have one, which `audience` must name then; without `audience` such tokens are for another API
        and refused. With `token_use="id"` ID tokens are taken, and only those. Headers have no `typ`. Tokens live 5
        minutes to 1 day. Sources: "Understanding the access token" (header, `client_id`, and `aud` only where the
        application requested a resource binding), "Understanding the identity (ID) token" and "Verifying JSON web
        tokens" in https://docs.aws.amazon.com/cognito/latest/developerguide/.
        """
        shape = presets.cognito(
            region=region,
            user_pool_id=user_pool_id,
            client_id=client_id,
            token_use=token_use,
            audience=audience,
            max_lifetime_s=max_lifetime_s,
        )
        return cls(**shape, leeway_s=leeway_s, claims_type=claims_type)

    @classmethod
    def entra(
        cls,
        *,
        tenant_id: str,
        audience: str | Iterable[str],
        version: str = "2.0",
        leeway_s: int = 5,
        claims_type: type[msgspec.Struct] | None = None,
        max_lifetime_s: int = 5_700,
    ) -> "Policy":
        """Access tokens of one Microsoft Entra tenant for the API whose client id is `audience`.

        In version 1.0 `audience` may also be the API's URI: whatever its clients ask with. `version` is what the API's
        registration says (`requestedAccessTokenVersion`), whatever endpoint a client uses. `Claims.scopes` are those in
        `scp`; app roles are in `claims["roles"]`. ID tokens are refused also where client and API share a registration.
        Tokens live 60 to 90 minutes and are dated 5 minutes back; with Continuous Access Evaluation up to 28 hours,
        which `max_lifetime_s` may then allow. The keys have no `alg`. National clouds have other issuers: make a
        `Policy` for them. Sources: "Access tokens in the Microsoft identity platform", "Access token claims reference"
        (`azp` and `appid`, `ver`, and `typ`, which is always JWT), "ID token claims reference" and "Optional claims
        reference" (neither of which knows `azp` or `appid`) in https://learn.microsoft.com/entra/identity-platform/.
        """
        shape = presets.entra(tenant_id=tenant_id, audience=audience, version=version, max_lifetime_s=max_lifetime_s)
        return cls(**shape, leeway_s=leeway_s, claims_type=claims_type)

    @classmethod
    def keycloak(
        cls,
        *,
        base_url: str,
        realm: str,
        audience: str | Iterable[str],
        client_id: str | Iterable[str] | None = None,
        algorithms: tuple[str, ...] = presets.RS256,
        leeway_s: int = 5,
        claims_type: type[msgspec.Struct] | None = None,
        max_lifetime_s: int = MAX_LIFETIME_S,
    ) -> "Policy":
        """Bearer access tokens of a Keycloak realm for the API that its audience mapper calls `audience`.

        Without such a mapper (or a client role) Keycloak sends no `aud`, or only `account`; never bind to `azp`
        instead, which names the client that a token was given to: `client_id` demands that besides, if given.
        Keycloak's other tokens (ID, refresh, logout, DPoP-bound) say so in a claim `typ` and are refused. `base_url`
        is all of the issuer before `/realms`. Tokens live 5 minutes unless the realm says otherwise. Sources:
        "Audience support" in the Server Administration Guide, https://www.keycloak.org/docs/latest/server_admin/ (a
        client is no audience of its own access tokens, and the one of its ID tokens), "Get a Keycloak Token and Read
        Every Claim", https://phasetwo.io/tutorials/getting-started/your-first-token/, and on the header's types
        https://github.com/keycloak/keycloak/pull/37573 (at+jwt, where a client asks for it) and …/pull/29260 (logout).
        """
        shape = presets.keycloak(
            base_url=base_url,
            realm=realm,
            audience=audience,
            client_id=client_id,
            algorithms=algorithms,
            max_lifetime_s=max_lifetime_s,
        )
        return cls(**shape, leeway_s=leeway_s, claims_type=claims_type)

    @classmethod
    def google(
        cls,
        *,
        client_id: str | Iterable[str],
        hosted_domain: str | None = None,
        leeway_s: int = 5,
        claims_type: type[msgspec.Struct] | None = None,
    ) -> "Policy":
        """Google's ID tokens for one OAuth client, or several of one project; its access tokens are no JWTs.

        `hosted_domain` takes accounts of that Workspace domain only (`hd`). Google's name has two spellings, with and
        without `https://`. Sources: "Google OpenID Connect API Reference",
        https://developers.google.com/identity/openid-connect/reference, and "Verify the Google ID token on your server
        side", https://developers.google.com/identity/gsi/web/guides/verify-google-id-token.
        """
        shape = presets.google(client_id=client_id, hosted_domain=hosted_domain)
        return cls(**shape, leeway_s=leeway_s, claims_type=claims_type)


def is_text(value: object) -> bool:
    """Say whether `value` is text that is not empty."""
    return isinstance(value, str) and value != ""


def _names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return None
    names = tuple(value)
    return names if all(isinstance(name, str) for name in names) else None


def _types(value: object) -> str | frozenset[str | Absent] | None:
    """Settle what a header's type may be; one text stays a text, which is compared faster."""
    types: list[str | Absent] = []
    for typ in (value,) if isinstance(value, str) or not isinstance(value, Iterable) else value:
        if isinstance(typ, str) and typ != "":
            types.append(normal_typ(typ))
        elif typ is ABSENT:
            types.append(ABSENT)
        else:
            return None
    if len(types) == 1 and isinstance(types[0], str):
        return types[0]
    return frozenset(types) or None


def _values(value: object) -> _Values | None:
    settled: list[tuple[str, frozenset[str] | type[str]]] = []
    for name, texts in value.items() if isinstance(value, Mapping) else _pairs(value):
        if not isinstance(name, str) or name == "":
            return None
        if texts is str:
            settled.append((name, str))
            continue
        values = (texts,) if isinstance(texts, str) else _names(texts)
        if not values or not all(values):
            return None
        settled.append((name, frozenset(values)))
    return tuple(settled)


def _pairs(value: object) -> Iterable[tuple[object, object]]:
    """Give the pairs of a policy that is made from another, whose values are settled already."""
    settled = isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)
    return value if settled else ((None, None),)  # type: ignore[return-value] # as has just been seen


def _type_faults(claims_type: object) -> list[str]:
    if claims_type is None:
        return []
    if not (isinstance(claims_type, type) and issubclass(claims_type, msgspec.Struct)):
        return ["claims_type must be a msgspec Struct."]
    try:
        msgspec.convert({}, claims_type)
    except msgspec.ValidationError:
        pass  # a claim is missing, of course
    except Exception:  # noqa: BLE001 - without any claim, even a type's own __post_init__ may raise anything
        return ["claims_type has a field of a type that msgspec cannot read, or raises something else without claims."]
    return []


class Claims:
    """The claims of a verified token: registered ones as attributes, any as `claims["name"]`. Immutable.

    Times are Unix seconds; fractions of a second, which RFC 7519 allows, are rounded to the token's disadvantage.
    """

    __slots__ = ("_custom", "_read", "_registered")

    def __init__(self, members: dict[str, Any] | None, registered: Registered, custom: object = None) -> None:
        """`members` are None where all of them are `registered`."""
        self._read = members
        self._registered = registered
        self._custom = custom

    @property
    def _members(self) -> dict[str, Any]:
        members = self._read
        if members is None:  # two threads may do this at once: they do the same
            registered = ((name, getattr(self._registered, name)) for name in Registered.__struct_fields__)
            self._read = members = {name: value for name, value in registered if value is not UNSET}
        return members

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
    def authentication_context(self) -> str | None:
        """`acr`: how sure the issuer is who it was, in its own words; jotgate's are "aal1" and "aal2"."""
        return self._registered.acr or None

    @property
    def methods(self) -> tuple[str, ...]:
        """`amr`: how the person proved who they are (RFC 8176), such as "pwd", "otp" and "mfa"."""
        return tuple(self._registered.amr or ())

    @property
    def custom(self) -> JsonValue:
        """The claims as the policy's `claims_type`; None if it has none."""
        return self._custom

    def as_type(self, claims_type: type[msgspec.Struct] | None) -> "Claims":
        """Give the same claims with `custom` of that type, or without any. Raises ClaimRefused if they do not fit."""
        custom = None if claims_type is None else read_custom(self._members, claims_type)
        return Claims(self._read, self._registered, custom)

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


class _Usual(Registered, frozen=True, kw_only=True):
    """The registered claims as nearly all tokens have them: times without fractions."""

    exp: _Seconds
    iat: _Seconds
    nbf: _Seconds | UnsetType = UNSET
    auth_time: _Seconds | UnsetType = UNSET


_Filled: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
_FILLED: Mapping[str, object] = {
    **dict.fromkeys(("exp", "iat", "nbf", "auth_time"), _Seconds),
    "aud": _Filled | Annotated[list[str], msgspec.Meta(min_length=1)],
    "amr": list[str],
}
_encode = msgspec.json.Encoder().encode
_BACKSLASH = ord("\\")  # a number is found four times as fast as a text of one character


@lru_cache(maxsize=64)
def _usual_decoder(required: frozenset[str]) -> Callable[[bytes], _Usual]:
    """Read usual claims, none of the `required` left out or empty: msgspec sees that in no measurable time."""
    fields = [(name, _FILLED.get(name, _Filled)) for name in required]
    kind = msgspec.defstruct("_UsualAndRequired", fields, bases=(_Usual,), frozen=True, kw_only=True)
    return cast("Callable[[bytes], _Usual]", msgspec.json.Decoder(kind).decode)


def _usual_reader(policy: Policy) -> Callable[[bytes, int], Claims | None]:
    """Give `Policy.read_usual`, for which all is settled here that does not change from token to token."""
    required = frozenset(policy.required)
    if (
        policy.audience_claim != "aud"
        or policy.scope_claim != "scope"
        or policy.forbidden
        or policy.claim_values
        or policy.claims_type is not None
        or not required <= REGISTERED
    ):
        return lambda payload, now: None
    decode = _usual_decoder(required)
    issuer, audience = policy.issuer, policy.audience
    leeway_s, max_lifetime_s = policy.leeway_s, policy.max_lifetime_s

    def read(payload: bytes, now: int) -> Claims | None:
        try:
            claims = decode(payload)
            if len(_encode(claims)) != len(payload) or _BACKSLASH in payload:
                return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        audiences, expires_at, issued_at, not_before = claims.aud, claims.exp, claims.iat, claims.nbf
        begun = now + leeway_s
        if (
            claims.iss == issuer
            and (audiences == audience or (type(audiences) is list and audience in audiences))
            and now < expires_at + leeway_s
            and issued_at <= begun
            and (not_before is UNSET or not_before <= begun)
            and expires_at - issued_at <= max_lifetime_s
        ):
            return Claims(None, claims)
        return None

    return read


def check_claims(members: dict[str, Any], policy: Policy, now: int) -> Registered:
    """Check types, issuer, audience and times against `policy` at `now` (Unix seconds).

    `exp` counts without its fraction of a second. Raises ClaimRefused, TokenExpired or TokenNotYetValid.
    """
    try:
        registered = _convert(members, Registered)  # as `read_registered`, one call less
    except msgspec.ValidationError as error:
        raise _wrong_type(members, error) from None
    for name in policy.required:
        value = members.get(name)
        if not value and value in _NOTHING:
            raise ClaimRefused(f"The token has no claim {name!r}.", claim=name)
    if registered.iss != policy.issuer and registered.iss not in policy.issuer_aliases:
        raise ClaimRefused("The token is of another issuer.", claim="iss")
    audience = registered.aud if policy.audience_claim == "aud" else members.get(policy.audience_claim)
    if audience != policy.audience and not _is_for(audience, policy):
        raise ClaimRefused("The token is for another audience.", claim=policy.audience_claim)
    if policy.forbidden or policy.claim_values or policy.scope_claim != "scope":
        _check_shape(members, registered, policy)
    leeway_s = policy.leeway_s
    expires_at = registered.exp // 1
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


def _is_for(audience: object, policy: Policy) -> bool:
    """Say whether one of the audience's names is one of the policy's. Only `aud` itself may be a list."""
    names = audience if type(audience) is list and policy.audience_claim == "aud" else (audience,)
    return policy.audience in names or any(name in names for name in policy.audience_aliases)


def _check_shape(members: dict[str, Any], registered: Registered, policy: Policy) -> None:
    """Check what tells one issuer's kinds of tokens apart."""
    for name in policy.forbidden:
        if name in members:
            raise ClaimRefused(f"The token has a claim {name!r}, which the tokens for here do not have.", claim=name)
    for name, values in cast("_Values", policy.claim_values):
        value = members.get(name)
        if type(value) is not str or (value == "" if isinstance(values, type) else value not in values):
            raise ClaimRefused(f"The claim {name!r} has not the value that is demanded here.", claim=name)
    if policy.scope_claim != "scope":
        scope = members.get(policy.scope_claim, UNSET)
        if scope is not UNSET and type(scope) is not str:
            raise ClaimRefused(f"The claim {policy.scope_claim!r} is not text.", claim=policy.scope_claim)
        force_setattr(registered, "scope", scope)


def read_custom(members: dict[str, Any], claims_type: type[msgspec.Struct]) -> msgspec.Struct:
    """Read the claims into a policy's `claims_type`. Raises ClaimRefused, which names the claim and no value."""
    known = _known_names(claims_type)
    if claims_type.__struct_config__.forbid_unknown_fields:
        members = {name: value for name, value in members.items() if name not in REGISTERED or name in known}
    try:
        # A copy, because msgspec passes on what is in a field of any type, and whoever gets `custom` may change it.
        return msgspec.convert(_copied(members), claims_type)
    except Exception:  # noqa: BLE001 - a set of lists is a TypeError, and a type's own __post_init__ may raise anything
        # The sentence of whatever was raised may quote the value, so the claim at fault is looked for instead.
        raise _own_fault(members, claims_type) from None


def _known_names(claims_type: type[msgspec.Struct]) -> tuple[str | None, ...]:
    """Give the claims that a type reads: those of its fields, and that which must say the type's own tag, if any."""
    return (*claims_type.__struct_encode_fields__, claims_type.__struct_config__.tag_field)


def _own_fault(members: dict[str, Any], claims_type: type[msgspec.Struct]) -> ClaimRefused:
    for field in msgspec.structs.fields(claims_type):
        name = field.encode_name
        if name not in members:
            if field.required:
                return ClaimRefused(f"The token has no claim {name!r}.", claim=name)
            continue
        try:
            msgspec.convert(members[name], field.type)
        except Exception:  # noqa: BLE001 - as above
            return ClaimRefused(f"The claim {name!r} is not of the type that is demanded here.", claim=name)
    config = claims_type.__struct_config__
    if config.tag_field is not None and members.get(config.tag_field, config.tag) != config.tag:
        name = config.tag_field
        return ClaimRefused(f"The claim {name!r} has not the value that is demanded here.", claim=name)
    if config.forbid_unknown_fields:
        for name in members:
            if name not in _known_names(claims_type):
                return ClaimRefused(f"The claim {name!r} is not one that is known here.", claim=name)
    return ClaimRefused("The token's claims are not of the type that is demanded here.", claim="")
