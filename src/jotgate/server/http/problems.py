"""The one error mapper: every exception becomes one problem+json (RFC 9457), or OAuth's own form where that is due.

A body names a stable code and says what to do. It never repeats what was sent, and an unexpected error tells nothing.
"""

from http import HTTPStatus
from typing import Final

import msgspec
import structlog

from jotgate.core.errors import JotgateError, KeySourceError, RequestRefused, TokenError
from jotgate.server.http.exchange import Response
from jotgate.server.log import where
from jotgate.server.refusals import (
    Busy,
    GrantRefused,
    InsufficientScope,
    InvalidRefreshToken,
    MethodNotAllowed,
    MetricsRefused,
    RefreshReused,
    SessionEnded,
    TooManyRequests,
    UnknownVerifier,
)
from jotgate.server.store import StoreError
from jotgate.throttle import Decision, header_fields
from jotgate.throttle import problem as quota_problem

_PROBLEM: Final = (b"content-type", b"application/problem+json")
_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")
_REALM: Final = "jotgate"
_RETRY_AFTER_S: Final = 1
# RFC 9110's names; the standard library's changed from one Python to the next.
_PHRASES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}


def problem(error: Exception, log: structlog.stdlib.BoundLogger) -> Response:
    """Render an error as ``application/problem+json``."""
    status, code, detail = _describe(error, log)
    if isinstance(error, TooManyRequests):
        body = msgspec.json.encode(quota_problem(error.decision))
        return Response(status, body, (_PROBLEM, _NO_STORE, *_extra_headers(error, status)))
    body = msgspec.json.encode(
        {"type": "about:blank", "title": _title(status), "status": status, "code": code, "detail": detail}
    )
    return Response(status, body, (_PROBLEM, _NO_STORE, *_extra_headers(error, status)))


def oauth_error(error: Exception, log: structlog.stdlib.BoundLogger) -> Response:
    """Render an error of the token endpoint (RFC 6749 section 5.2)."""
    status, code, detail = _describe(error, log)
    if isinstance(error, InvalidRefreshToken | SessionEnded | RefreshReused):
        status, code = 400, "invalid_grant"
    elif isinstance(error, TooManyRequests):
        code = "temporarily_unavailable"
    elif status >= 500:
        code = "temporarily_unavailable" if status == 503 else "server_error"
    elif not isinstance(error, GrantRefused):
        code = "invalid_request"
    body = msgspec.json.encode({"error": code, "error_description": detail})
    return Response(status, body, (_JSON, _NO_STORE, (b"pragma", b"no-cache"), *_extra_headers(error, status)))


def _describe(error: Exception, log: structlog.stdlib.BoundLogger) -> tuple[int, str, str]:
    if isinstance(error, RequestRefused):
        return error.status, error.code, str(error)
    if isinstance(error, TokenError):
        return 401, error.code, str(error)
    if isinstance(error, KeySourceError | StoreError):
        log.error("unavailable", code=error.code, error=type(error).__name__, at=where(error))
        return 503, "unavailable", "The server cannot answer just now. Try again in a moment."
    if isinstance(error, JotgateError):
        log.error("failed", code=error.code, reason=str(error), at=where(error))
        return 500, error.code, "Something is set up wrong on the server; its log says what."
    # The message of an error that nobody foresaw may hold anything: neither the log nor the answer gets it.
    log.error("internal_error", error=type(error).__name__, at=where(error))
    return 500, "internal_error", "Something went wrong on the server."


def _title(status: int) -> str:
    return _PHRASES.get(status) or HTTPStatus(status).phrase


def _extra_headers(error: Exception, status: int) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    if status == 503:
        wait_s = error.retry_after_s if isinstance(error, Busy) else _RETRY_AFTER_S
        headers.append((b"retry-after", str(wait_s).encode()))
    if isinstance(error, TooManyRequests):
        headers += limit_headers(error.decision)
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if status == 401 or isinstance(error, InsufficientScope):
        headers.append((b"www-authenticate", _challenge(error).encode("ascii", "replace")))
    return headers


def limit_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    """Say how the sender stands with a limit: `RateLimit`, `RateLimit-Policy`, and `Retry-After` in a refusal."""
    return [(name.lower().encode(), value.encode()) for name, value in header_fields(decision).items()]


def _challenge(error: Exception) -> str:
    """Return the challenge of RFC 6750 section 3; without ``error`` where no access token was sent."""
    if isinstance(error, TokenError):
        return f'Bearer realm="{_REALM}", error="invalid_token", error_description="{_quoted(str(error))}"'
    if isinstance(error, UnknownVerifier | MetricsRefused):
        return f'Bearer realm="{_REALM}", error="invalid_token"'
    if isinstance(error, InsufficientScope):
        return f'Bearer realm="{_REALM}", error="insufficient_scope", scope="{error.scope}"'
    return f'Bearer realm="{_REALM}"'


def _quoted(text: str) -> str:
    """Keep to the characters that RFC 6750 section 3 allows in ``error_description``."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
