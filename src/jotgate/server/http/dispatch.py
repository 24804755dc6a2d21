"""From a request to its endpoint, and whatever comes of that to a response: found by an exact-path dictionary."""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import structs

from jotgate.core.errors import JotgateError, MalformedToken, RequestRefused, TokenError
from jotgate.server.flows.auditing import line
from jotgate.server.flows.deps import CLIENT_ID, Deps
from jotgate.server.http.askers import is_known_verifier, origin_of_request, shown_devices
from jotgate.server.http.browser import check_not_cross_site, cors_headers, preflight_headers
from jotgate.server.http.documents import (
    FEED_KEYS_PATH,
    JWKS_PATH,
    METADATA_PATH,
    OPENAPI_PATH,
    OPENID_PATH,
    Document,
    metadata,
    openapi,
)
from jotgate.server.http.exchange import Headers, Receive, Request, Response, StreamResponse, read_body
from jotgate.server.http.problems import limit_headers, oauth_error, problem
from jotgate.server.http.routes import ROUTES, Route
from jotgate.server.http.showing import page_headers, page_of_problem
from jotgate.server.keys import ServerKeys
from jotgate.server.metrics import OTHER
from jotgate.server.refusals import NOTHING_HERE, Busy, ClearTextRefused, MethodNotAllowed, NotFound, TooManyRequests

_ANY_ORIGIN: Final = ((b"access-control-allow-origin", b"*"),)
_COMMON: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
# Whether pages of other sites may embed an answer, without CORS and so without reading it (Fetch standard).
_OPEN: Final = (b"cross-origin-resource-policy", b"cross-origin")
_OWN: Final = (b"cross-origin-resource-policy", b"same-origin")
_ASKERS_FAULTS: Final = (RequestRefused, TokenError)
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_ROUTES: Final[Mapping[str, Mapping[str, Route]]] = {
    path: {route.method: route for route in ROUTES if route.path == path} for path in {route.path for route in ROUTES}
}


def _template(path: str) -> str:
    """Return the path with ``{id}`` for its last segment, as the route table writes it."""
    parent, _, last = path.rpartition("/")
    return f"{parent}/{{id}}" if last else path


class Api:
    """The endpoints and documents of one server, over the parts that they work with."""

    def __init__(self, deps: Deps, *, monotonic: Callable[[], float]) -> None:
        self._deps = deps
        self._monotonic = monotonic
        self._settings = deps.settings
        meta = Document(metadata(self._settings))
        self._documents: dict[str, Document] = {
            METADATA_PATH: meta,
            # Where RFC 8414 section 3.1 puts it for an issuer with a path, when the server has the host to itself.
            METADATA_PATH + self._settings.issuer_path: meta,
            OPENID_PATH: meta,
            OPENAPI_PATH: Document(openapi(self._settings)),
        }
        deps.keys.on_change(self._publish)
        host_is_local = self._settings.origin.startswith(("https://localhost", "https://127.", "https://[::1]"))
        self._page_headers = page_headers(self._settings)
        # Not on localhost: browsers would apply it to everything else that is developed there.
        self._secure_headers: Headers = _COMMON if host_is_local else (*_COMMON, _HSTS)

    def _publish(self, keys: ServerKeys) -> None:
        """Answer with these keys from now on."""
        max_age_s = self._settings.jwks_max_age_s
        self._documents[JWKS_PATH] = Document(keys.published.to_jwks(), max_age_s=max_age_s)
        self._documents[FEED_KEYS_PATH] = Document(keys.feed_published.to_jwks(), max_age_s=max_age_s)

    def metadata(self, request: Request) -> Response:
        """Answer with the metadata, whatever the path."""
        document = self._documents[METADATA_PATH].response(request)
        return document.with_headers(*self._headers(request, _ANY_ORIGIN))

    async def answer(self, request: Request, receive: Receive) -> Response | StreamResponse:
        """Return the response to a request whose body has not been read yet. Every error is an answer."""
        began = self._monotonic()
        path = request.path if request.path in _ROUTES else _template(request.path)
        routes = _ROUTES.get(path, {})
        render = oauth_error if any(route.form for route in routes.values()) else problem
        is_page = any(route.page for route in routes.values())
        is_open = request.path in self._documents or any(route.public for route in routes.values())
        # No other origin reads a page, not even one that may speak for its visitors: forms hold tokens.
        cors: Headers = _ANY_ORIGIN if is_open else () if is_page else cors_headers(request, self._settings)
        fields: list[tuple[bytes, bytes]] = []
        slow = False
        try:
            response: Response | StreamResponse = await self._dispatch(request, routes, receive, fields)
        except Exception as error:  # noqa: BLE001 - the mapper turns every error into an answer
            response = render(error, self._deps.log)
            if is_page:
                response = page_of_problem(error, response, request, self._settings)
            self._count_refusal(error)
            if isinstance(error, TooManyRequests):
                self._tell_of_guess(request, routes, error)
            slow = isinstance(error, TooManyRequests | Busy)
            if any(name == b"retry-after" for name, _ in response.headers):
                fields = []  # what is left of the limit would promise a later time than this
        known = routes or request.path in self._documents
        status = response.status if isinstance(response, Response) else 200
        self._deps.metrics.answered(
            (path if routes else request.path) if known else OTHER, request.method, status, self._monotonic() - began
        )
        if slow:
            await self._deps.slowdown.wait()
        headers = self._headers(request, cors)
        if is_page:
            replaced = {name for name, _ in self._page_headers}
            headers = (*(each for each in headers if each[0] not in replaced), *self._page_headers)
        return response.with_headers(*headers, *fields)

    def _tell_of_guess(self, request: Request, routes: Mapping[str, Route], refused: TooManyRequests) -> None:
        """Leave a line in the audit trail where an address may not guess any more; of accounts, flows tell."""
        route = routes.get(request.method)
        if route is not None and route.by_device and refused.decision.violated == (route.limit,):
            origin = origin_of_request(request)
            detail = {"limited": route.limit}
            self._deps.audit.put(line("login_failed", self._deps.clock(), origin, actor="anonymous", detail=detail))

    def _count_refusal(self, error: Exception) -> None:
        self._deps.metrics.refused(error.code if isinstance(error, JotgateError) else "internal_error")
        if isinstance(error, TooManyRequests):
            self._deps.metrics.limited(error.decision.violated)

    def _headers(self, request: Request, cors: Headers) -> Headers:
        embedding = _OPEN if cors is _ANY_ORIGIN else _OWN
        return (*(self._secure_headers if request.sender.secure else _COMMON), embedding, *cors)

    async def _dispatch(
        self,
        request: Request,
        routes: Mapping[str, Route],
        receive: Receive,
        fields: list[tuple[bytes, bytes]],
    ) -> Response | StreamResponse:
        document = self._documents.get(request.path)
        if document is None and not routes:
            raise NotFound(NOTHING_HERE)
        method = "GET" if request.method == "HEAD" else request.method
        methods = tuple(sorted({*routes} | ({"GET"} if document else set())))
        allowed = (*methods, "HEAD") if "GET" in methods else methods
        if method == "OPTIONS":
            return Response(204, headers=((b"allow", ", ".join(allowed).encode()), *preflight_headers(allowed)))
        if method not in methods:
            raise MethodNotAllowed(allowed)
        if document is not None:
            return document.response(request)
        route = routes[method]
        if not route.public and not request.sender.confidential:
            raise ClearTextRefused(
                f"Passwords and tokens do not travel unencrypted: use {self._settings.issuer}. "
                "(Operators: name the proxy that speaks TLS in trusted_proxies.)"
            )
        # A link in a mail is opened from the mail client's own site; to look at the page does nothing.
        looks = route.page and method == "GET"
        if not route.public and not looks and not request.all(b"authorization"):  # which no other site's page can send
            # Before anything is counted: such a page must not use up what its visitor's address may ask.
            check_not_cross_site(request, self._settings)
        if route.limit is None:
            return await route.handler(self._deps, request)
        if route.limit == "feed":
            return await self._feed(request, route, fields)
        if route.by_device:
            devices = shown_devices(
                request, self._deps.keys.now.device_tokens, self._settings.issuer, now=self._deps.clock()
            )
            request = structs.replace(request, asker=structs.replace(request.asker, devices=devices))
        if route.hashes:
            stranger = route.credential == "none" and not request.asker.devices
            self._deps.passwords.check_room(stranger=stranger)
        ticket = await self._deps.limits.admit(route.limit, request.asker, CLIENT_ID)
        fields += limit_headers(ticket.decision)
        try:
            if route.method != "GET":
                request = await read_body(request, receive)
            response = await route.handler(self._deps, request)
        except Exception as error:
            # Who was not answered, for a reason on this side, has not guessed.
            if route.counts_failures and (isinstance(error, Busy) or not isinstance(error, _ASKERS_FAULTS)):
                await ticket.give_back()
            raise
        # A page that asks once more says no as well.
        if route.counts_failures and (not isinstance(response, Response) or response.status < 400):
            await ticket.give_back()
        return response

    async def _feed(
        self, request: Request, route: Route, fields: list[tuple[bytes, bytes]]
    ) -> Response | StreamResponse:
        """Answer a verifier; one that the server knows has no limit, and one that only says so has the address's."""
        try:
            known = is_known_verifier(request, self._settings)
        except (RequestRefused, MalformedToken):
            await self._deps.limits.admit("feed", request.asker, CLIENT_ID)
            raise
        if not known:
            fields += limit_headers((await self._deps.limits.admit("feed", request.asker, CLIENT_ID)).decision)
        return await route.handler(
            self._deps, structs.replace(request, asker=structs.replace(request.asker, known=known))
        )
