"""What a running server shows to whoever comes from outside, and what that means for the eight practices.

Pure: facts in, findings out. It opens no connection.
"""

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from jotgate.cli.checkup import CERTIFICATE_WARN_S, DAY_S, is_local
from jotgate.cli.findings import Finding, failed, passed, warned

HEARTBEAT_WITHIN_S: Final = 6.0
FOREIGN_ORIGIN: Final = "https://foreign.example"
_CLOCK_WARN_S: Final = 5
_CLOCK_FAIL_S: Final = 60
_AGAIN: Final = "See the server's log and the proxy's, and ask again when it answers."
# Of servers of TLS to whoever speaks without it: a bad request, to https, misdirected, upgrade.
_REFUSALS: Final = frozenset({400, 301, 302, 307, 308, 421, 426})
_HEADERS: Final = (
    "x-content-type-options",
    "referrer-policy",
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
)


class Answer(Struct, frozen=True):
    """Status and headers, their names in lower case."""

    status: int
    headers: Mapping[str, str]


class Server(Struct, frozen=True, kw_only=True):
    """What was seen of a server; None, for an answer, where none came."""

    url: str
    now: int = 0
    fault: str | None = None
    """Why nothing else is known: it cannot be reached, or its certificate is not trusted."""
    certificate_ends_at: int = 0
    tls_version: str = ""
    alpn: str | None = None
    old_tls: Literal["refused", "taken", "not tried", "not seen"] = "not seen"
    clear_text: int | Literal["closed", "not seen"] = "not seen"
    """The status of an answer to HTTP without TLS on the same port; 0 for bytes that are no HTTP."""
    port_80: Answer | None = None
    ready: Answer | None = None
    token_error: Answer | None = None
    preflight: Answer | None = None
    account: Answer | None = None
    """An endpoint for the issuer's own pages, asked from a foreign origin."""
    metadata_fault: str | None = None
    keys_fault: str | None = None
    algorithms: tuple[str, ...] = ()
    feed_fault: str | None = None
    heartbeat_s: float | None = None


def check_server(seen: Server) -> Iterator[Finding]:
    """Make all checks; of a server that cannot be reached there is one finding."""
    if seen.fault is not None:
        remedy = "Start it, or mend --url; --ca-file names the authority of its certificate."
        yield failed("https", "reachable", f"{seen.url} cannot be asked: {seen.fault}.", remedy)
        return
    for check in (
        check_certificate,
        check_protocols,
        check_clear_text,
        check_headers,
        check_ready,
        check_clock,
        check_metadata,
        check_keys,
        check_feed,
        check_no_store,
        check_cors,
        check_limits,
    ):
        yield from check(seen)


def _is_local(seen: Server) -> bool:
    return is_local(urlsplit(seen.url).hostname or "")


def check_certificate(seen: Server) -> Iterator[Finding]:
    """The certificate is trusted, and for weeks to come."""
    yield passed("https", "certificate", "The certificate is trusted, and is for this name.")
    left_s = seen.certificate_ends_at - seen.now
    if left_s < CERTIFICATE_WARN_S:
        detail = f"The certificate expires in {left_s // DAY_S} days."
        yield warned("https", "certificate-expiry", detail, "Renew it, and see why that did not happen by itself.")
    else:
        yield passed("https", "certificate-expiry", f"The certificate is good for {left_s // DAY_S} more days.")


def check_protocols(seen: Server) -> Iterator[Finding]:
    """TLS 1.2 or 1.3 and nothing older; HTTP/2."""
    if seen.old_tls == "taken":
        yield failed("https", "old-tls", "TLS 1.0 or 1.1 is taken.", "Take TLS 1.2 and 1.3 only.")
    elif seen.old_tls == "not tried":
        detail = "This machine's OpenSSL cannot speak TLS 1.1, so that it could not be tried."
        yield warned("https", "old-tls", detail, "Run the doctor from a machine whose OpenSSL can.")
    elif seen.old_tls == "not seen":
        detail = "Whether TLS 1.0 or 1.1 is taken could not be seen: no answer came."
        yield warned("https", "old-tls", detail, _AGAIN)
    else:
        yield passed("https", "old-tls", f"TLS 1.0 and 1.1 are refused; this was {seen.tls_version}.")
    if seen.alpn == "h2":
        yield passed("https", "http-2", "HTTP/2 is spoken.")
    else:
        yield warned("https", "http-2", "HTTP/2 is not spoken.", "Let whatever speaks TLS there offer h2.")


def check_clear_text(seen: Server) -> Iterator[Finding]:
    """Clear text gets no answer, or is sent to https."""
    status = seen.clear_text
    if status == "not seen":
        detail = "Whether HTTP without TLS is answered on this port could not be seen: it was left waiting."
        yield warned("https", "clear-text", detail, _AGAIN)
    elif status in {"closed", 0}:
        yield passed("https", "clear-text", "HTTP without TLS gets no answer on this port.")
    elif status in _REFUSALS:
        yield passed("https", "clear-text", f"HTTP without TLS is refused on this port (status {status}).")
    else:
        detail = f"HTTP without TLS is answered on this port (status {status})."
        yield failed("https", "clear-text", detail, "Let it speak TLS only.")
    if seen.port_80 is None:
        return
    if 300 <= seen.port_80.status < 400 and seen.port_80.headers.get("location", "").startswith("https://"):
        yield passed("https", "port-80", "Port 80 sends everybody to https.")
    else:
        detail = f"Port 80 answers with status {seen.port_80.status} instead of sending everybody to https."
        yield failed("https", "port-80", detail, "Redirect it to https, or close it.")


def check_headers(seen: Server) -> Iterator[Finding]:
    """Browsers are told what not to do."""
    if seen.ready is None:
        yield failed("https", "security-headers", "No answer came whose headers could be seen.", _AGAIN)
        return
    headers = seen.ready.headers
    missing = [name for name in _HEADERS if name not in headers]
    if missing:
        detail = f"Answers lack {', '.join(missing)}."
        yield failed("https", "security-headers", detail, "Let the proxy in front pass the server's headers on.")
    else:
        yield passed("https", "security-headers", "Answers carry the security headers.")
    if _is_local(seen):
        return  # browsers would apply it to everything else on localhost
    if "strict-transport-security" in headers:
        yield passed("https", "hsts", "Browsers are told to use https alone (HSTS).")
    else:
        detail = "Answers lack strict-transport-security."
        yield failed("https", "hsts", detail, "Let the proxy name itself in JOTGATE_TRUSTED_PROXIES, and pass it on.")


def check_ready(seen: Server) -> Iterator[Finding]:
    """The server says that it can do its work."""
    if seen.ready is not None and seen.ready.status == 200:
        yield passed("stateless", "ready", "The server is ready, and its database with it.")
    else:
        status = "no answer" if seen.ready is None else f"status {seen.ready.status}"
        yield failed("stateless", "ready", f"/readyz gives {status}.", "The server's log says why.")


def check_clock(seen: Server) -> Iterator[Finding]:
    """The server's clock and this machine's agree."""
    if seen.ready is None:
        yield warned("expire", "clock", "The server's clock could not be seen: no answer came.", _AGAIN)
        return
    date = seen.ready.headers.get("date", "")
    try:
        apart_s = abs(int(parsedate_to_datetime(date).timestamp()) - seen.now)
    except (ValueError, OverflowError):  # the latter: an offset of years
        yield warned("expire", "clock", "The server's answers tell no time.", "Let the proxy pass the field Date on.")
        return
    remedy = "Set both clocks by NTP: tokens expire by them."
    if apart_s > _CLOCK_FAIL_S:
        yield failed("expire", "clock", f"The server's clock and this one are {apart_s} s apart.", remedy)
    elif apart_s > _CLOCK_WARN_S:
        yield warned("expire", "clock", f"The server's clock and this one are {apart_s} s apart.", remedy)
    else:
        yield passed("expire", "clock", "The server's clock and this one agree.")


def check_metadata(seen: Server) -> Iterator[Finding]:
    """The metadata name exactly this issuer (RFC 8414 section 3.3)."""
    if seen.metadata_fault is not None:
        detail = f"The metadata cannot be used: {seen.metadata_fault}."
        yield failed("signatures", "metadata", detail, "Give the issuer's exact URL, and serve its well-known paths.")
    else:
        yield passed("signatures", "metadata", "The metadata name exactly this issuer.")


def check_keys(seen: Server) -> Iterator[Finding]:
    """What is published are public keys that are strong enough."""
    if seen.metadata_fault is not None:
        return
    if seen.keys_fault is not None:
        detail = f"The key set cannot be used: {seen.keys_fault}."
        yield failed("keys", "key-set", detail, "Publish public keys alone, of a strength that verifiers take.")
        return
    yield passed("keys", "key-set", f"{len(seen.algorithms)} public keys are published, and nothing secret.")
    if len(seen.algorithms) < 2:
        detail = "No key is published ahead: an emergency has no successor."
        yield warned("keys", "next-key", detail, "See the server's log for why it makes none.")


def check_feed(seen: Server) -> Iterator[Finding]:
    """Verifiers hear of revocations, and hear that there are none."""
    if seen.metadata_fault is not None:
        return
    if seen.feed_fault is not None:
        detail = f"The revocation feed cannot be followed: {seen.feed_fault}."
        yield failed("revocable", "feed", detail, "Let the proxy pass streams through unbuffered.")
    elif seen.heartbeat_s is None:
        detail = f"The feed's snapshot is signed, but no heartbeat came within {HEARTBEAT_WITHIN_S:.0f} s."
        yield failed("revocable", "feed", detail, "Let the proxy pass streams through unbuffered.")
    else:
        yield passed("revocable", "feed", f"The feed is signed, and was heard after {seen.heartbeat_s:.1f} s.")


def check_no_store(seen: Server) -> Iterator[Finding]:
    """Nobody keeps what the token endpoint says, an error included."""
    if seen.token_error is None:
        detail = "Whether answers of the token endpoint may be kept could not be seen: none came."
        yield failed("sensitive-data", "no-store", detail, _AGAIN)
    elif "no-store" in seen.token_error.headers.get("cache-control", ""):
        yield passed("sensitive-data", "no-store", "Answers of the token endpoint must not be kept.")
    else:
        detail = "Answers of the token endpoint may be kept by caches (no Cache-Control: no-store)."
        yield failed("sensitive-data", "no-store", detail, "Let the proxy pass the server's headers on.")


def check_cors(seen: Server) -> Iterator[Finding]:
    """Pages of another origin may not read, or do, what belongs to a session."""
    for answer in (seen.preflight, seen.account):
        if answer is None:
            continue
        allowed = answer.headers.get("access-control-allow-origin", "")
        if allowed == FOREIGN_ORIGIN or "access-control-allow-credentials" in answer.headers:
            detail = f"The pages of a foreign origin ({FOREIGN_ORIGIN}) may use the session."
            yield failed("sensitive-data", "cors", detail, "Let no proxy add CORS headers, and none reflect an origin.")
            return
    if any(answer is None or answer.status >= 500 for answer in (seen.preflight, seen.account)):
        detail = "Whether pages of a foreign origin may use the session could not be seen: the server did not answer."
        yield warned("sensitive-data", "cors", detail, _AGAIN)
        return
    yield passed("sensitive-data", "cors", "Pages of a foreign origin may not use the session.")


def check_limits(seen: Server) -> Iterator[Finding]:
    """A limited route says what is left."""
    if seen.token_error is None:
        detail = "Whether the token endpoint is limited could not be seen: no answer came."
        yield warned("rate-limiting", "fields", detail, _AGAIN)
        return
    headers = seen.token_error.headers
    if "ratelimit" in headers and "ratelimit-policy" in headers:
        yield passed("rate-limiting", "fields", "Answers tell what is left of a limit.")
    elif seen.token_error.status == 429:
        yield passed("rate-limiting", "fields", "The limit of this address is used up, which shows that there is one.")
    else:
        detail = "The token endpoint's answers carry no RateLimit fields."
        yield warned("rate-limiting", "fields", detail, "Let the proxy pass RateLimit and RateLimit-Policy on.")
