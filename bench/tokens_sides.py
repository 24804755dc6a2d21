"""The Python libraries of `bench.tokens`: for each one how to sign and verify with one key; it measures nothing.

Every library is set up once per key as its documentation says for repeated use, and then told to demand the same:
algorithm, issuer, audience, the times with 5 s of leeway, the claims that must be there, and the header's `typ` where
the library has such a check or gives the header back anyway (the comparison is written here then). What a library
does not check is not taken from its documentation: `unchecked` offers it tokens that are bad in one way each.
"""

import importlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.tokens_fixture import AUDIENCE, ISSUER, KID, LEEWAY_S, REQUIRED, TYP, Claims, Keys, make_claims, make_keys


@dataclass(frozen=True, slots=True)
class Side:
    """One library with one key."""

    name: str
    alg: str
    """What this library's header calls the algorithm: some only know Ed25519 by its deprecated name `EdDSA`."""
    verify: Callable[[str], object]
    """Raises for a token that is refused."""
    sign: Callable[[Claims], object]


class NotOffered(Exception):
    """The library lacks the algorithm, or is not installed."""


Maker = Callable[[Keys], Side]


def make_sides(keys: Keys) -> tuple[list[Side], dict[str, str]]:
    """Return the libraries that can use this key, and for each other one why it cannot.

    Raises RuntimeError for a library that refuses a good token: whatever it would be measured at would be wrong.
    """
    sides: list[Side] = []
    absent: dict[str, str] = {}
    for name, maker in MAKERS.items():
        try:
            with warnings.catch_warnings(record=True):  # Authlib announces that its JOSE part will go
                side = maker(keys)
        except NotOffered as reason:
            absent[name] = str(reason)
            continue
        try:
            side.verify(keys.token(make_claims(), alg=side.alg))
            side.sign(make_claims())
        except Exception as fault:
            raise RuntimeError(f"{name} cannot use a good {keys.algorithm} token") from fault
        sides.append(side)
    return sides, absent


def bad_tokens(keys: Keys, alg: str) -> dict[str, str]:
    """Tokens that are well signed (save one) and wrong in one way, by what is wrong."""
    now = int(time.time())
    later, earlier = now + 1000, now - 1000
    wrong = {
        "iss": make_claims(iss="https://evil.example"),
        "aud": make_claims(aud="https://other.example"),
        "exp passed": make_claims(exp=earlier, iat=earlier - 300, nbf=earlier - 300),
        "nbf to come": make_claims(nbf=later, exp=later + 300),
        "iat to come": make_claims(iat=later, exp=later + 300),
        **{f"no {name}": make_claims(**{name: None}) for name in REQUIRED},
    }
    tokens = {what: keys.token(claims, alg=alg) for what, claims in wrong.items()}
    tokens["typ"] = keys.token(make_claims(), alg=alg, typ="JWT")
    tokens["signature"] = make_keys(keys.algorithm).token(make_claims(), alg=alg)
    return tokens


def unchecked(keys: Keys, side: Side) -> tuple[str, ...]:
    """Return in which ways a token can be wrong without this side refusing it."""
    passed: list[str] = []
    for what, token in bad_tokens(keys, side.alg).items():
        try:
            side.verify(token)
        except Exception:  # noqa: BLE001, S112 # each library has errors of its own, and any of them is a refusal
            continue
        passed.append(what)
    return tuple(passed)


def _module(name: str) -> Any:  # noqa: ANN401 # the libraries are optional: to the type checker they do not exist
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotOffered("not installed") from None


def _header(alg: str) -> dict[str, str]:
    return {"alg": alg, "kid": KID, "typ": TYP}


def _demand_typ(header: Mapping[str, object]) -> None:
    if header.get("typ") != TYP:
        raise ValueError("another typ")


def _jotgate(keys: Keys) -> Side:
    import jotgate  # noqa: PLC0415 # as the others: measuring one must not need another

    try:
        key = jotgate.Key.from_jwk(keys.jwk)
    except jotgate.KeyRefused as refused:
        raise NotOffered(str(refused)) from None
    key_set = jotgate.KeySet([key if key.symmetric else key.public])
    policy = jotgate.Policy(
        issuer=ISSUER,
        audience=AUDIENCE,
        algorithms=(keys.algorithm,),
        typ=TYP,
        leeway_s=LEEWAY_S,
        required=tuple(name for name in REQUIRED if name not in ("iss", "aud", "exp")),  # which no policy goes without
    )
    verify_token, issue_token, wall_clock = jotgate.verify_token, jotgate.issue_token, time.time

    def verify(token: str) -> object:
        return verify_token(token, key_set, policy, int(wall_clock()))

    def sign(claims: Claims) -> object:
        return issue_token(claims, key, typ=TYP)

    return Side("jotgate", keys.algorithm, verify, sign)


def _pyjwt(keys: Keys) -> Side:
    jwt = _module("jwt")
    alg = "EdDSA" if keys.algorithm == "Ed25519" else keys.algorithm
    try:
        key = jwt.PyJWK({**keys.jwk, "alg": alg})
        public = jwt.PyJWK({**keys.public_jwk, "alg": alg})
    except jwt.PyJWTError:
        raise NotOffered("lacks the algorithm") from None
    options = {"require": list(REQUIRED)}

    def verify(token: str) -> object:
        decoded = jwt.decode_complete(
            token, public, algorithms=[alg], issuer=ISSUER, audience=AUDIENCE, leeway=LEEWAY_S, options=options
        )
        _demand_typ(decoded["header"])
        return decoded["payload"]

    def sign(claims: Claims) -> object:
        return jwt.encode(claims, key.key, algorithm=alg, headers={"kid": KID, "typ": TYP})

    return Side("PyJWT", alg, verify, sign)


def _joserfc(keys: Keys) -> Side:
    jwt, jwk, errors = _module("joserfc.jwt"), _module("joserfc.jwk"), _module("joserfc.errors")
    alg = keys.algorithm
    try:
        key, public = jwk.import_key(dict(keys.jwk)), jwk.import_key(keys.public_jwk)
        jwt.encode(_header(alg), {}, key, algorithms=[alg])
    except (errors.JoseError, ValueError, KeyError):
        raise NotOffered("lacks the algorithm") from None
    demands: dict[str, dict[str, Any]] = {name: {"essential": True} for name in REQUIRED}
    demands["iss"]["value"] = ISSUER
    demands["aud"]["value"] = AUDIENCE
    registry = jwt.JWTClaimsRegistry(leeway=LEEWAY_S, **demands)

    def verify(token: str) -> object:
        decoded = jwt.decode(token, public, algorithms=[alg])
        _demand_typ(decoded.header)
        registry.validate(decoded.claims)
        return decoded.claims

    def sign(claims: Claims) -> object:
        return jwt.encode(_header(alg), claims, key, algorithms=[alg])

    return Side("joserfc", alg, verify, sign)


def _authlib(keys: Keys) -> Side:
    jose = _module("authlib.jose")
    alg = "EdDSA" if keys.algorithm == "Ed25519" else keys.algorithm
    try:
        codec = jose.JsonWebToken([alg])
        key = jose.JsonWebKey.import_key({**keys.jwk, "alg": alg})
        public = jose.JsonWebKey.import_key({**keys.public_jwk, "alg": alg})
        codec.encode(_header(alg), {}, key)
    except (jose.errors.JoseError, ValueError, KeyError):
        raise NotOffered("lacks the algorithm") from None
    demands: dict[str, dict[str, Any]] = {name: {"essential": True} for name in REQUIRED}
    demands["iss"]["value"] = ISSUER
    demands["aud"]["value"] = AUDIENCE

    def verify(token: str) -> object:
        claims = codec.decode(token, public, claims_options=demands)
        _demand_typ(claims.header)
        claims.validate(leeway=LEEWAY_S)
        return claims

    def sign(claims: Claims) -> object:
        return codec.encode(_header(alg), claims, key)

    return Side("Authlib", alg, verify, sign)


def _python_jose(keys: Keys) -> Side:
    jwt, jwk, errors = _module("jose.jwt"), _module("jose.jwk"), _module("jose.exceptions")
    alg = keys.algorithm
    try:
        key, public = jwk.construct(dict(keys.jwk), alg), jwk.construct(keys.public_jwk, alg)
    except errors.JOSEError:
        raise NotOffered("lacks the algorithm") from None
    options: dict[str, Any] = {f"require_{name}": True for name in REQUIRED}
    options["leeway"] = LEEWAY_S

    def verify(token: str) -> object:
        return jwt.decode(token, public, algorithms=[alg], audience=AUDIENCE, issuer=ISSUER, options=options)

    def sign(claims: Claims) -> object:
        return jwt.encode(claims, key, algorithm=alg, headers={"kid": KID, "typ": TYP})

    return Side("python-jose", alg, verify, sign)


def _jwcrypto(keys: Keys) -> Side:
    jwt, jwk, common = _module("jwcrypto.jwt"), _module("jwcrypto.jwk"), _module("jwcrypto.common")
    alg = keys.algorithm
    try:
        key, public = jwk.JWK(**keys.jwk), jwk.JWK(**keys.public_jwk)
        made = jwt.JWT(header=_header(alg), claims={}, algs=[alg])
        made.make_signed_token(key)
    except (common.JWException, ValueError):
        raise NotOffered("lacks the algorithm") from None
    demands: dict[str, str | None] = dict.fromkeys(REQUIRED)
    demands["iss"] = ISSUER
    demands["aud"] = AUDIENCE

    def verify(token: str) -> object:
        # It gives the claims as text; whoever asks for them has to parse them once more. Its leeway is always 60 s.
        checked = jwt.JWT(
            jwt=token,
            key=public,
            algs=[alg],
            check_claims=demands,
            expected_type="JWS",
            strict_serialization=True,
        )
        return common.json_decode(checked.claims)

    def sign(claims: Claims) -> object:
        token = jwt.JWT(header=_header(alg), claims=claims, algs=[alg])
        token.make_signed_token(key)
        return token.serialize()

    return Side("jwcrypto", alg, verify, sign)


MAKERS: Mapping[str, Maker] = {
    "jotgate": _jotgate,
    "PyJWT": _pyjwt,
    "joserfc": _joserfc,
    "Authlib": _authlib,
    "python-jose": _python_jose,
    "jwcrypto": _jwcrypto,
}
