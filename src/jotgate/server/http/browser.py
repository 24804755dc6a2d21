"""What a browser may do with the session cookie: the cookie itself, cross-site checks, CORS; it knows no endpoint.

RFC 10017 (browser-based apps), RFC 6265bis (cookie prefixes), the Fetch standard (Origin, CORS), Fetch Metadata.
"""

import functools
import hashlib
from typing import Final

from jotgate.server.http.exchange import Request
from jotgate.server.refusals import BrowserDeliveryRefused, CrossSiteRefused, HeaderRefused, MissingCredential
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings

CLIENT_HEADER: Final = b"jotgate-client"
_PREFLIGHT_S: Final = b"600"


@functools.cache
def cookie_name(issuer: str) -> str:
    """Return the name of the session cookie: two issuers on one host do not overwrite each other's.

    The prefix makes browsers insist on Secure, path ``/``, no Domain, and that no script set it.
    """
    return f"__Host-Http-jotgate-{hashlib.sha256(issuer.encode()).hexdigest()[:8]}"


def set_cookie(issuer: str, value: Secret, max_age_s: int) -> tuple[bytes, bytes]:
    """Return the header that gives the session cookie."""
    return _cookie(issuer, value.reveal(), max_age_s)


def clear_cookie(issuer: str) -> tuple[bytes, bytes]:
    """Return the header that takes the session cookie away."""
    return _cookie(issuer, "", 0)


def _cookie(issuer: str, value: str, max_age_s: int) -> tuple[bytes, bytes]:
    return cookie(cookie_name(issuer), value, max_age_s)


def cookie(name: str, value: str, max_age_s: int) -> tuple[bytes, bytes]:
    """Return the header that sets a cookie which no script and no other site has any use of."""
    text = f"{name}={value}; Max-Age={max_age_s}; Path=/; Secure; HttpOnly; SameSite=Strict"
    return b"set-cookie", text.encode("ascii")


def read_cookie(request: Request, issuer: str) -> Secret | None:
    """Return the session cookie's value, None without one.

    Raises:
        HeaderRefused: there are two of that name, which no honest browser sends.
    """
    values = cookie_values(request, cookie_name(issuer))
    if len(values) > 1:
        raise HeaderRefused("The session cookie must not be sent twice.")
    return Secret(values[0]) if values and values[0] else None


def cookie_values(request: Request, name: str) -> list[str]:
    """Return the values of all cookies of a name."""
    # HTTP/2 may split the header into several lines (RFC 9113 section 8.2.3).
    pairs = (part.strip().partition("=") for line in request.all(b"cookie") for part in line.split(";"))
    return [value for key, _, value in pairs if key == name]


def check_not_cross_site(request: Request, settings: Settings) -> None:
    """Refuse what another site's page sends; requests that no browser made pass.

    Raises:
        CrossSiteRefused: Origin is neither ours nor in the allowed list, or Sec-Fetch-Site says ``cross-site``.
    """
    origin, site = request.one(b"origin"), request.one(b"sec-fetch-site")
    if origin is not None and origin != settings.origin and origin not in settings.allowed_origins:
        raise CrossSiteRefused(
            f"Pages of this origin may not do this: open {settings.origin}. "
            "(Operators: further origins go into allowed_origins.)"
        )
    if site is not None and site != "same-origin" and (origin is None or site != "same-site"):
        raise CrossSiteRefused("The browser says that another site's page sent this.")


def check_own_page(request: Request, settings: Settings) -> None:
    """Demand the proof that a page of ours is behind a request that uses or gives the session cookie.

    Raises:
        CrossSiteRefused: the header ``Jotgate-Client: 1`` is missing (only a script of an allowed origin can send it),
            or the browser does not vouch for the origin.
    """
    check_not_cross_site(request, settings)
    if request.one(CLIENT_HEADER) != "1":
        raise CrossSiteRefused("Send the header 'Jotgate-Client: 1' with calls that use the session cookie.")
    if request.one(b"origin") is None and request.one(b"sec-fetch-site") is None:
        raise CrossSiteRefused(
            "The session cookie is for browsers, which send Origin or Sec-Fetch-Site. "
            'Other clients ask for the refresh token with "delivery": "body".'
        )


def check_no_browser(request: Request, settings: Settings) -> None:
    """Refuse to handle a refresh token in a body where a browser is at work: scripts could read it there.

    Raises:
        BrowserDeliveryRefused: Origin, a Sec-Fetch header or the session cookie is present.
    """
    if request.has_browser_marks() or read_cookie(request, settings.issuer) is not None:
        raise BrowserDeliveryRefused(
            "In a browser the refresh token stays in the HttpOnly cookie. Leave out delivery and refresh_token."
        )


def session_credential(request: Request, in_body: Secret | None, settings: Settings) -> tuple[Secret, bool]:
    """Return the refresh token of a request, and whether it came as the cookie.

    Raises:
        BrowserDeliveryRefused, CrossSiteRefused: it came in a way that is not safe.
        MissingCredential: there is none.
    """
    if in_body is not None:
        check_no_browser(request, settings)
        return in_body, False
    cookie = read_cookie(request, settings.issuer)
    if cookie is None:
        raise MissingCredential("Log in first: this needs the session cookie, or refresh_token in the body.")
    check_own_page(request, settings)
    return cookie, True


def cors_headers(request: Request, settings: Settings) -> tuple[tuple[bytes, bytes], ...]:
    """Return what lets a page of an allowed origin read an answer (credentialed CORS); nothing for other origins."""
    if not settings.allowed_origins:
        return ()
    vary = (b"vary", b"Origin")
    origins = request.all(b"origin")
    if len(origins) != 1 or origins[0] not in settings.allowed_origins:
        return (vary,)
    return (
        vary,
        (b"access-control-allow-origin", origins[0].encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (
            b"access-control-expose-headers",
            b"date, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-request-id",
        ),
    )


def preflight_headers(methods: tuple[str, ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Return what a preflight is told besides ``cors_headers``."""
    return (
        (b"access-control-allow-methods", ", ".join(methods).encode("ascii")),
        (b"access-control-allow-headers", b"authorization, content-type, jotgate-client"),
        (b"access-control-max-age", _PREFLIGHT_S),
    )
