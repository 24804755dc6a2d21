"""Who asks, as far as limits go: an address, a browser that has logged in before, a verifier that the server knows.

It knows no endpoint, and decides nothing about the request itself: none of these opens anything.
"""

import hmac
from collections.abc import Sequence
from typing import Final

from jotgate.core.bearer import parse_authorization
from jotgate.server.device_tokens import DEVICE_LIFE_S, DeviceToken, DeviceTokens
from jotgate.server.flows.auditing import Origin
from jotgate.server.http.browser import cookie, cookie_name, cookie_values
from jotgate.server.http.exchange import Request
from jotgate.server.refusals import ClearTextRefused, MetricsRefused, UnknownVerifier
from jotgate.server.rules.devices import describe_device
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings

_MAX_DEVICES: Final = 4
"""So many people may share a browser without being strangers to it."""
_SEPARATOR: Final = "."


def device_cookie_name(issuer: str) -> str:
    """Return the name of the device cookie: as the session's, with another ending."""
    return f"{cookie_name(issuer)}-device"


def shown_devices(request: Request, tokens: DeviceTokens | None, issuer: str, *, now: int) -> tuple[DeviceToken, ...]:
    """Return the authentic device tokens in the request's cookie; whatever else stands there is not worth an error."""
    if tokens is None:
        return ()
    found = (tokens.read(raw, now=now) for raw in _raw_tokens(request, issuer))
    return tuple(token for token in found if token is not None)


def device_cookie(
    request: Request, tokens: DeviceTokens, issuer: str, *, made: Secret, replaced: DeviceToken | None, now: int
) -> tuple[bytes, bytes]:
    """Return the header that adds a new device token to those that the browser has, in the place of an older one."""
    kept = []
    for raw in _raw_tokens(request, issuer):
        token = tokens.read(raw, now=now)
        if token is not None and token != replaced:
            kept.append(raw)
    value = _SEPARATOR.join([made.reveal(), *kept][:_MAX_DEVICES])
    return cookie(device_cookie_name(issuer), value, DEVICE_LIFE_S)


def _raw_tokens(request: Request, issuer: str) -> list[str]:
    values = cookie_values(request, device_cookie_name(issuer))
    return [raw for value in values[:1] for raw in value.split(_SEPARATOR, _MAX_DEVICES)[:_MAX_DEVICES]]


def is_known_verifier(request: Request, settings: Settings) -> bool:
    """Whether the request carries one of the server's verifier tokens (RFC 6750 section 2.1); False without any.

    Raises:
        MalformedToken, UnknownVerifier: it carries another one.
        ClearTextRefused: it came over clear text, where others could read it.
    """
    token = parse_authorization(request.one(b"authorization"))
    if token is None:
        return False
    if not request.sender.confidential:
        raise ClearTextRefused(f"Verifier tokens do not travel unencrypted: use {settings.issuer}.")
    if not _is_one_of(token, settings.verifier_tokens):
        raise UnknownVerifier(
            "This server knows no such verifier token: give it in JOTGATE_VERIFIER_TOKENS, or leave it out here."
        )
    return True


def check_scraper(request: Request, token: Secret) -> None:
    """Refuse who does not carry the metrics token.

    Raises:
        MalformedToken, MetricsRefused: it carries another one, or none.
    """
    given = parse_authorization(request.one(b"authorization"))
    if given is None or not _is_one_of(given, (token,)):
        raise MetricsRefused("Metrics are for whoever has the token in JOTGATE_METRICS_TOKEN.")


def origin_of_request(request: Request) -> Origin:
    """Return where a request comes from, as people are shown it and the audit trail keeps it."""
    address = request.sender.address
    named = request.all(b"user-agent")  # it is only shown: one that stands there twice is no reason to refuse
    device = describe_device(named[0] if named else None)
    return Origin("" if address is None else str(address), device, request.request_id)


def _is_one_of(given: str, known: Sequence[Secret]) -> bool:
    """Compare with each, whichever fits, in a time that says nothing of how much of it was right."""
    return sum(hmac.compare_digest(given.encode(), each.reveal().encode()) for each in known) > 0
