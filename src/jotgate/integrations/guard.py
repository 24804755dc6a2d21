"""Whether a request may pass, decided on its ASGI scope: finds the one credential, asks the verifier, words refusals.

It must not know any framework. What a refusal says is RFC 6750 section 3, RFC 9470 and RFC 9457; it never
repeats the token.
"""

import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

import msgspec

from jotgate.core.bearer import parse_authorization
from jotgate.core.claims import AAL2, MULTI_FACTOR, Claims
from jotgate.core.errors import JotgateError, KeySourceError, SettingsError, TokenError
from jotgate.core.forwarded import TrustedProxies, resolve_sender
from jotgate.verifier import Verifier

Scope = MutableMapping[str, Any]
"""An ASGI connection scope."""

SUBPROTOCOL = "jotgate.bearer"
"""What a browser's WebSocket offers right before the token: `new WebSocket(url, ["jotgate.bearer", token])`."""

RETRY_AFTER_S = 2
"""When to come back while no keys can be had: the time that a verifier itself would wait for them."""

_CLAIMS = "jotgate.claims"
_ADMITTED = "jotgate.admitted"
# Browsers keep no cookie whose name, value and attributes are over 4096 bytes, and say nothing.
_MAX_COOKIE_BYTES = 4096
_SCOPE_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('"\\')  # RFC 6749 section 3.3
_TEXT_CHARACTERS = _SCOPE_CHARACTERS | {" "}  # RFC 6750 section 3

Origin = Literal["header", "subprotocol", "cookie"]
Factor = Literal["second"]


class Credential(NamedTuple):
    """A token and where in the request it stood."""

    token: str
    origin: Origin


class StepUp(msgspec.Struct, frozen=True):
    """How a person must have logged in, besides that their token is good (RFC 9470).

    Args:
        max_age_s: at most so many seconds ago, by the claim `auth_time`; the verifier's leeway is added.
        factor: `"second"`: with a second factor, or a passkey that verified its user: "mfa" in the claim `amr`.

    Raises:
        ValueError: what no login could meet, or is not known.
    """

    max_age_s: int | None = None
    factor: Factor | None = None

    def __post_init__(self) -> None:
        if self.max_age_s is not None and (type(self.max_age_s) is not int or self.max_age_s < 0):
            raise ValueError(f"max_age_s is a whole number of seconds that is not negative, and not {self.max_age_s!r}")
        if self.factor not in (None, "second"):
            raise ValueError(f"factor is 'second', or None, and not {self.factor!r}")

    def is_met(self, claims: Claims, now: int, leeway_s: int) -> bool:
        """Tell whether the token's login was such a one. Of what the token does not say, none is assumed."""
        if self.factor is not None and MULTI_FACTOR not in claims.methods:
            return False
        if self.max_age_s is None:
            return True
        # A login in the future is none: an issuer that counts milliseconds must not make it everlasting.
        return claims.auth_time is not None and -leeway_s <= now - claims.auth_time <= self.max_age_s + leeway_s

    @property
    def detail(self) -> str:
        """What the person has to do."""
        how = "" if self.factor is None else " with a second factor or a passkey"
        when = "" if self.max_age_s is None else f" in the last {self.max_age_s} seconds"
        return f"Log in again: this needs a login{how}{when}."

    @property
    def parameters(self) -> str:
        """What a client asks the issuer for, as parameters of a challenge (RFC 9470 section 3)."""
        asked = "" if self.factor is None else f', acr_values="{AAL2}"'
        return asked if self.max_age_s is None else f'{asked}, max_age="{self.max_age_s}"'


ANY_LOGIN = StepUp()
"""Demands nothing."""


class Admitted(NamedTuple):
    """Whom a guard let pass, so that two checks of one request verify once."""

    guard: "Guard"
    claims: Claims
    credential: Credential


class Refused(JotgateError):
    """A request that may not pass: the status, the headers and the body of the answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, challenge: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.challenge = challenge
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """What the answer needs besides its body; no name stands twice."""
        headers = {"cache-control": "no-store"}
        if self.challenge is not None:
            headers["www-authenticate"] = self.challenge
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        return headers

    @property
    def body(self) -> bytes:
        """The problem document (RFC 9457), to be sent as `application/problem+json`."""
        return msgspec.json.encode(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
            }
        )


class Guard:
    """Lets requests pass that carry a valid token in one of the allowed places.

    Args:
        verifier: judges the tokens.
        realm: names the protected space in challenges (RFC 9110 section 11.5).
        trusted_proxies: addresses and networks of proxies that end TLS in front of this app, or how many of them there
            are. `Forwarded` and `X-Forwarded-*` are read from nobody else.

    Raises:
        SettingsError: with every fault at once.
    """

    def __init__(self, verifier: Verifier, *, realm: str = "api", trusted_proxies: Sequence[str] | int = ()) -> None:
        faults: list[str] = []
        if not _TEXT_CHARACTERS.issuperset(realm):
            faults.append("realm must be printable ASCII without quotes and backslashes.")
        try:
            self._proxies = TrustedProxies.parse(trusted_proxies)
        except ValueError as fault:
            faults.append(f"trusted_proxies: {fault}.")
        if faults:
            raise SettingsError(faults)
        self._trusts_proxies = bool(self._proxies)
        self._verifier = verifier
        self._realm = realm
        # Cookies know no ports: two APIs on one host must not overwrite each other's.
        name = hashlib.sha256(f"{verifier.issuer}\n{verifier.audience}".encode()).hexdigest()[:8]
        self.cookie_name = f"__Host-Http-jotgate-stream-{name}"

    async def admit(
        self, scope: Scope, scopes: Collection[str] = (), *, step_up: StepUp = ANY_LOGIN, stream: bool = False
    ) -> Claims:
        """Return the claims of the request's token, and leave them in the ASGI scope.

        Args:
            scope: of an `http` or `websocket` connection.
            scopes: all of which the token has to have.
            step_up: how the person must have logged in.
            stream: take the cookie of `stream_cookie` too, where an EventSource sends it.

        Raises:
            Refused: 401, 403, 400 or 503, with everything that the answer needs.
        """
        claims = await self.admit_any(scope, stream=stream)
        if claims is None:
            raise self._refused(401, "missing_credential", "This needs an access token: Authorization: Bearer …")
        if not claims.has_scopes(*scopes):
            detail = "The access token lacks a scope that this needs."
            raise self._refused(403, "insufficient_scope", detail, error="insufficient_scope", scopes=scopes)
        # Each time, also where a request is known already: another check may have asked for less.
        if not step_up.is_met(claims, self._verifier.clock(), self._verifier.leeway_s):
            code = "insufficient_user_authentication"
            raise self._refused(401, code, step_up.detail, error=code, step_up=step_up)
        return claims

    async def admit_any(self, scope: Scope, *, stream: bool = False) -> Claims | None:
        """Do the same for requests that may also come without any token: None then. A bad token is refused."""
        admitted = scope.get(_ADMITTED)
        if (
            isinstance(admitted, Admitted)
            and admitted.guard is self
            and (stream or admitted.credential.origin != "cookie")
        ):
            return admitted.claims
        try:
            credential = self._find(scope, stream=stream)
            if credential is None:
                return None
            self._check_confidential(scope)
            claims = await self._verifier.averify(credential.token)
        except TokenError as refusal:
            raise self._refused(401, refusal.code, str(refusal), error="invalid_token") from None
        except KeySourceError as outage:
            # The reason names hosts and faults inside; it is for the verifier's log and status.
            detail = "Access tokens cannot be checked at the moment."
            raise Refused(503, outage.code, detail, retry_after_s=RETRY_AFTER_S) from outage
        scope[_ADMITTED] = Admitted(self, claims, credential)
        scope[_CLAIMS] = claims
        scope.setdefault("state", {})["claims"] = claims
        if credential.origin == "subprotocol":
            # Apps may echo or log what was offered; the token is not for that.
            offered = scope.get("subprotocols", ())
            scope["subprotocols"] = [name for name in offered if name not in (SUBPROTOCOL, credential.token)]
        return claims

    def stream_cookie(self, scope: Scope) -> str:
        """Return the `Set-Cookie` value that lets an EventSource, which cannot set headers, carry the same token.

        The token must have come in the `Authorization` header of this very request and have been admitted: a page of
        another site cannot make a browser send that. The cookie ends with the token.

        Raises:
            RuntimeError: this guard admitted no such token in this request: a fault of the program.
            Refused: the token is too long for a cookie.
        """
        admitted = scope.get(_ADMITTED)
        if (
            not isinstance(admitted, Admitted)
            or admitted.guard is not self
            or admitted.credential.origin != "header"
            or scope["type"] != "http"
        ):
            raise RuntimeError("A stream cookie is made for a request whose bearer header this Auth has admitted.")
        left_s = max(0, admitted.claims.expires_at - self._verifier.clock())
        cookie = (
            f"{self.cookie_name}={admitted.credential.token}; "
            f"Max-Age={left_s}; Path=/; Secure; HttpOnly; SameSite=Strict"
        )
        if len(cookie) > _MAX_COOKIE_BYTES:
            raise Refused(400, "token_too_long", "The access token is too long for a cookie.")
        return cookie

    def _find(self, scope: Scope, *, stream: bool) -> Credential | None:
        headers = _values(scope, b"authorization")
        found: list[Credential] = []
        for value in headers:
            if (token := parse_authorization(value)) is not None:
                found.append(Credential(token, "header"))  # noqa: PERF401 - a comprehension has its own frame
        if scope["type"] == "websocket":
            found += [Credential(token, "subprotocol") for token in _offered_tokens(scope)]
        if len(headers) > 1 or len(found) > 1:
            raise self._ambiguous()
        if found:
            return found[0]
        return self._find_cookie(scope) if stream else None

    def _find_cookie(self, scope: Scope) -> Credential | None:
        accepted = [part.partition(b";")[0].strip().lower() for part in _parts(scope, b"accept", b",")]
        if scope["type"] != "http" or scope["method"] != "GET" or b"text/event-stream" not in accepted:
            return None
        wanted = self.cookie_name.encode()
        pairs = [part.strip().partition(b"=") for part in _parts(scope, b"cookie", b";")]
        values = [value for name, _, value in pairs if name == wanted]
        if not values:
            return None
        if len(values) > 1:
            raise self._ambiguous()
        # Cookies come along whoever made the browser ask, so the browser has to say who that was.
        if _values(scope, b"sec-fetch-site") not in ([b"same-origin"], [b"same-site"]):
            raise self._refused(403, "cross_site_refused", "The stream cookie counts for pages of the same site only.")
        # And for what: `empty` is a script's request or an EventSource (Fetch Metadata §2.1), and no page, frame, image
        # or worker that somebody makes the browser load from here.
        if list(_values(scope, b"sec-fetch-dest")) != [b"empty"]:
            raise self._refused(403, "not_an_event_source", "The stream cookie counts for an EventSource only.")
        return Credential(values[0].decode("latin-1"), "cookie")

    def _check_confidential(self, scope: Scope) -> None:
        client = scope.get("client")
        peer, scheme = client[0] if client else None, scope.get("scheme", "http")
        if self._trusts_proxies:
            confidential = resolve_sender(
                peer,
                scheme,
                forwarded=texts(scope, b"forwarded"),
                forwarded_for=texts(scope, b"x-forwarded-for"),
                forwarded_proto=texts(scope, b"x-forwarded-proto"),
                proxies=self._proxies,
            ).confidential
        else:
            confidential = _is_confidential(peer, scheme)
        if not confidential:
            detail = (
                "Access tokens are taken over HTTPS only. "
                "(Loopback is allowed; a proxy that ends TLS has to be named in trusted_proxies.)"
            )
            raise self._refused(403, "clear_text_refused", detail)

    def _ambiguous(self) -> Refused:
        detail = "The request carries more than one credential."
        return self._refused(400, "ambiguous_credential", detail, error="invalid_request")

    def _refused(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        error: str | None = None,
        scopes: Collection[str] = (),
        step_up: StepUp = ANY_LOGIN,
    ) -> Refused:
        challenge = f'Bearer realm="{self._realm}"'
        if error is not None:
            said = "".join(char if char in _TEXT_CHARACTERS else "'" for char in detail)
            challenge += f', error="{error}", error_description="{said}"'
        if scopes:
            challenge += f', scope="{" ".join(scopes)}"'
        return Refused(status, code, detail, challenge=challenge + step_up.parameters)


def check_scopes(scopes: Iterable[object]) -> None:
    """Refuse required scopes that no token could ever have.

    Raises:
        ValueError: not names of RFC 6749 section 3.3; two names in one text, for instance, or a text instead of names.
    """
    for scope in [scopes] if isinstance(scopes, str) else scopes:
        named = isinstance(scope, str) and scope != "" and _SCOPE_CHARACTERS.issuperset(scope)
        if not named or scope is scopes:
            raise ValueError(f"{scope!r} is not the name of one scope, in a list of scopes")


def came_by_subprotocol(scope: Scope) -> bool:
    """Tell whether the server has to select SUBPROTOCOL when it accepts this WebSocket."""
    admitted = scope.get(_ADMITTED)
    return isinstance(admitted, Admitted) and admitted.credential.origin == "subprotocol"


def selecting(message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return the message, selecting SUBPROTOCOL if it accepts a WebSocket and selects nothing else.

    A browser gives up a connection whose server selects none of the subprotocols that were offered.
    """
    if message["type"] == "websocket.accept" and not message.get("subprotocol"):
        return {**message, "subprotocol": SUBPROTOCOL}
    return message


@functools.lru_cache(maxsize=1024)
def _is_confidential(peer: str | None, scheme: str) -> bool:
    """Tell it of a connection, which brings many requests, where nobody vouches for what headers say."""
    return resolve_sender(peer, scheme, proxies=TrustedProxies()).confidential


def _offered_tokens(scope: Scope) -> Iterator[str]:
    offered = [part.strip().decode("latin-1") for part in _parts(scope, b"sec-websocket-protocol", b",")]
    for index, name in enumerate(offered):
        if name == SUBPROTOCOL:
            yield offered[index + 1] if index + 1 < len(offered) else ""


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]


def texts(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header's lines, in order."""
    return [value.decode("latin-1") for value in _values(scope, name)]


def _parts(scope: Scope, name: bytes, separator: bytes) -> Iterator[bytes]:
    return (part for value in _values(scope, name) for part in value.split(separator))
