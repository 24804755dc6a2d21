"""How third-party issuers shape their tokens, as settings for a `Policy`; knows no token and no network.

Every function gives the keyword arguments of one policy. A preset only narrows: to the issuer's own spelling of its
name, its algorithms, its header types, and the claims that tell its access tokens from its other tokens. What it is
given is checked, so that a pasted URL or the name of another tenant is a SettingsError at start and not a token
that is refused (or taken) later. Where a provider changes its tokens, this file is where to look.
"""

import enum
import re
from collections.abc import Iterable
from typing import Any, Final

from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.errors import SettingsError


class Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT
"""Stands in a policy's `typ` for a header without `typ`: `Policy(…, typ={"JWT", ABSENT})`."""

RS256 = ("RS256",)
DAY_S = 86_400

# A logout token or another security event (OpenID Connect Back-Channel Logout 1.0 §2.4, RFC 8417 §2.2) has `events`.
_EVENTS = ("events",)
# What OpenID Connect Core §2 and §3.3.2.11 put into ID tokens alone, and events: no access token has any of them.
_FOREIGN_CLAIMS = ("nonce", "at_hash", "c_hash", *_EVENTS)

_HOST = r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+"
_GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BASE_URL = r"https://[^\s/?#@\\]+(?:/[^\s/?#@\\]+)*"
_REALM = r"[^\s/?#\\%]+"
_REGION = r"[a-z]{2}(?:-[a-z]+)+-\d+"


def auth0(
    *, domain: str, audience: str | Iterable[str], algorithms: tuple[str, ...] = RS256, max_lifetime_s: int = DAY_S
) -> dict[str, Any]:
    """Auth0 ends its issuer with a slash, and its two token profiles differ in the header's type."""
    _check(
        "auth0",
        (_fits(_HOST, domain), "domain must be a host name such as tenant.eu.auth0.com."),
        _by_pairs(algorithms),
        _bounded(max_lifetime_s, 30 * DAY_S),
    )
    return {
        "issuer": f"https://{domain}/",
        **_audience(audience),
        "algorithms": algorithms,
        "typ": ("JWT", "at+jwt"),
        "forbidden": _FOREIGN_CLAIMS,
        "max_lifetime_s": max_lifetime_s,
    }


def cognito(
    *,
    region: str,
    user_pool_id: str,
    client_id: str | Iterable[str],
    token_use: str = "access",  # noqa: S107 # not a password
    audience: str | Iterable[str] | None = None,
    max_lifetime_s: int = DAY_S,
) -> dict[str, Any]:
    """Cognito sends no `typ`, and puts the client where others put the audience."""
    region_fits, of_ids = _fits(_REGION, region), token_use == "id"  # noqa: S105 # not a password
    _check(
        "cognito",
        (region_fits, "region must be one of AWS's, such as eu-central-1."),
        (
            not region_fits or _fits(f"{region}_[0-9A-Za-z]+", user_pool_id),
            "user_pool_id must begin with the region, such as eu-central-1_Ab12cd34E.",
        ),
        (token_use in ("access", "id"), "token_use must be 'access' or 'id'."),
        (audience is None or not of_ids, "audience is for access tokens."),
        _bounded(max_lifetime_s, DAY_S),
    )
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    shape: dict[str, Any] = {
        "issuer": f"https://cognito-idp.{region}.{suffix}/{user_pool_id}",
        "algorithms": RS256,
        "typ": ABSENT,
        "max_lifetime_s": max_lifetime_s,
        "claim_values": {"token_use": token_use},
    }
    if of_ids:
        return {**shape, **_audience(client_id)}
    if audience is None:
        # An `aud` would name another API, and RFC 7519 §4.1.3 says to refuse it then.
        return {**shape, **_audience(client_id), "audience_claim": "client_id", "forbidden": ("aud",)}
    return {**shape, **_audience(audience), "claim_values": {"token_use": "access", "client_id": client_id}}


def entra(
    *, tenant_id: str, audience: str | Iterable[str], version: str = "2.0", max_lifetime_s: int = 5_700
) -> dict[str, Any]:
    """Entra names itself differently in the two token versions, which the API's registration chooses between."""
    second, audiences = version == "2.0", _texts(audience)
    _check(
        "entra",
        (_fits(_GUID, tenant_id), "tenant_id must be the tenant's id in lower case, not a domain or 'common'."),
        (version in ("1.0", "2.0"), "version must be '1.0' or '2.0'."),
        (
            not second or all(_fits(_GUID, name) for name in audiences),
            "audience must be the API's client id in lower case: tokens of version 2.0 name no URI.",
        ),
        _bounded(max_lifetime_s, 28 * 3600 + 300),
    )
    host = "https://login.microsoftonline.com" if second else "https://sts.windows.net"
    return {
        "issuer": f"{host}/{tenant_id}/v2.0" if second else f"{host}/{tenant_id}/",
        **_audience(audiences),
        "algorithms": RS256,
        "typ": "JWT",
        # An app that calls its own API under one registration gets ID tokens and access tokens with the same
        # audience: only the latter name the client that they were given to (Entra's claims references).
        "claim_values": {"tid": tenant_id, "ver": version, "azp" if second else "appid": str},
        "forbidden": _FOREIGN_CLAIMS,
        "scope_claim": "scp",
        "max_lifetime_s": max_lifetime_s,
    }


def keycloak(
    *,
    base_url: str,
    realm: str,
    audience: str | Iterable[str],
    client_id: str | Iterable[str] | None = None,
    algorithms: tuple[str, ...] = RS256,
    max_lifetime_s: int = 3600,
) -> dict[str, Any]:
    """Keycloak tells its kinds of tokens apart by a claim `typ`, not by the header."""
    _check(
        "keycloak",
        (_fits(_BASE_URL, base_url), "base_url must be an https URL without a slash at its end."),
        (_fits(_REALM, realm), "realm must be one segment of a URL's path."),
        _by_pairs(algorithms),
        _bounded(max_lifetime_s, DAY_S),
    )
    values: dict[str, Any] = {"typ": "Bearer"}
    if client_id is not None:
        values["azp"] = client_id
    return {
        "issuer": f"{base_url}/realms/{realm}",
        **_audience(audience),
        "algorithms": algorithms,
        "typ": ("JWT", "at+jwt"),
        "claim_values": values,
        "forbidden": _EVENTS,
        "max_lifetime_s": max_lifetime_s,
    }


def google(*, client_id: str | Iterable[str], hosted_domain: str | None = None) -> dict[str, Any]:
    """Google says its own name in two spellings, and its ID tokens are dated five minutes back."""
    shape: dict[str, Any] = {
        "issuer": "https://accounts.google.com",
        "issuer_aliases": ("accounts.google.com",),
        **_audience(client_id),
        "algorithms": RS256,
        "typ": "JWT",
        "forbidden": _EVENTS,
        "max_lifetime_s": 3_900,
    }
    if hosted_domain is not None:
        _check("google", (_fits(_HOST, hosted_domain), "hosted_domain must be a domain such as example.com."))
        shape["claim_values"] = {"hd": hosted_domain}
    return shape


def _texts(value: object) -> tuple[object, ...]:
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _audience(names: object) -> dict[str, Any]:
    """Settle one name or several; what they are made of is for the policy to check."""
    first, *others = _texts(names) or ("",)
    return {"audience": first, "audience_aliases": others}


def _fits(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _bounded(asked_s: object, most_s: int) -> tuple[bool, str]:
    return type(asked_s) is int and 0 < asked_s <= most_s, f"max_lifetime_s must be 1 to {most_s} seconds."


def _by_pairs(algorithms: object) -> tuple[bool, str]:
    """Demand key pairs: whoever verifies by the issuer's HMAC secret could sign as the issuer."""
    rows = [ALGORITHMS[name] for name in _texts(algorithms) if isinstance(name, str) and name in ALGORITHMS]
    return not any(row.symmetric for row in rows), "algorithms must be those of key pairs, and not HMAC."


def _check(preset: str, *demands: tuple[bool, str]) -> None:
    faults = [f"{preset}: {sentence}" for holds, sentence in demands if not holds]
    if faults:
        raise SettingsError(faults)
