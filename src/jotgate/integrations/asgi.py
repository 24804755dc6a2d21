"""Protects any ASGI app as a whole: `app = BearerMiddleware(app, verifier)`, and limits what it is asked to do.

It must not know any framework.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any

from jotgate.integrations.guard import (
    Factor,
    Guard,
    Refused,
    Scope,
    StepUp,
    came_by_subprotocol,
    check_scopes,
    selecting,
)
from jotgate.integrations.throttling import Address, By, Meter, peer_address
from jotgate.throttle.fields import header_fields
from jotgate.throttle.limits import Limit
from jotgate.throttle.store import Store
from jotgate.verifier import Verifier

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBLEM_TYPE = "application/problem+json"  # RFC 9457
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1


class BearerMiddleware:
    """Passes on requests and WebSockets with a valid access token, and answers all others itself.

    The app finds the claims in `scope["jotgate.claims"]` and `scope["state"]["claims"]`; in Starlette the latter is
    `request.state.claims`. Put CORS middleware around this one: preflight requests carry no token.

    Args:
        app: the ASGI app to protect.
        verifier: judges the tokens.
        scopes: all of which a token has to have.
        max_age_s: how many seconds ago the person may have logged in, at most.
        factor: `"second"`: they must have done so with a second factor or a passkey.
        public: paths (`scope["path"]`, compared exactly) that are open to all.
        anonymous: let requests without any token pass too, with claims None. A bad token is still refused.
        realm: names the protected space in challenges.
        trusted_proxies: addresses or networks of proxies that end TLS in front of this app, or how many there are.

    Raises:
        SettingsError: with every fault at once.
        ValueError: a scope that is not one name, or a login that cannot be.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: Verifier,
        *,
        scopes: Sequence[str] = (),
        max_age_s: int | None = None,
        factor: Factor | None = None,
        public: Collection[str] = (),
        anonymous: bool = False,
        realm: str = "api",
        trusted_proxies: Sequence[str] | int = (),
    ) -> None:
        check_scopes(scopes)
        self._app = app
        self._guard = Guard(verifier, realm=realm, trusted_proxies=trusted_proxies)
        self._scopes = tuple(scopes)
        self._step_up = StepUp(max_age_s, factor)
        self._public = frozenset(public)
        self._anonymous = anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        # What the guard writes is for the app inside, and not for whoever made the scope.
        inner = {**scope, "state": dict(scope.get("state", ()))}
        try:
            await self._admit(inner)
        except Refused as refused:
            await _refuse_first(refused, scope, receive, send)
            return
        await self._app(inner, receive, selecting_send(send) if came_by_subprotocol(inner) else send)

    async def _admit(self, scope: Scope) -> None:
        if self._anonymous and await self._guard.admit_any(scope) is None:
            scope["jotgate.claims"] = scope["state"]["claims"] = None
        else:
            await self._guard.admit(scope, self._scopes, step_up=self._step_up)


class ThrottleMiddleware:
    """Counts requests and WebSockets, passes on those within all the limits, and answers the others with 429.

    What passes is answered with `RateLimit-Policy` and `RateLimit`, whatever the app says. Inside `BearerMiddleware`
    it knows the claims, so that requests can count for their token's subject; around it, it also counts
    those that will be refused. Put CORS middleware around both.

    Args:
        app: the ASGI app to protect.
        store: where requests are counted.
        *limits: `"100/minute"` and the like, or `Limit`s; all have to agree.
        by: whose allowance a request uses: `"address"` (IPv6 by its /64), or, where `BearerMiddleware` has found
            claims, `"subject"`, `"client"` or `"scope"`; or a function of the ASGI scope that says it.
        address: tells a request's address; `forwarded_address(…)` makes one for an app behind proxies.
        costs: what a request for a path (`scope["path"]`, compared exactly) costs; 0 is not counted. All others cost 1.

    Raises:
        InvalidLimit: a limit, or a cost, that could never work.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Store,
        *limits: str | Limit,
        by: By = "address",
        address: Address = peer_address,
        costs: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._meter = Meter(store, limits, by=by, address=address)
        self._costs = dict(costs or {})
        for cost in self._costs.values():
            self._meter.check_cost(cost)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        cost = self._costs.get(scope["path"], 1) if scope["type"] in ("http", "websocket") else 0
        if cost == 0:
            await self._app(scope, receive, send)
            return
        try:
            decision = await self._meter.admit(scope, cost)
        except Refused as refused:
            await _refuse_first(refused, scope, receive, send)
            return
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in header_fields(decision).items()]

        async def telling_send(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                message = {**message, "headers": [*message.get("headers", ()), *fields]}
            await send(message)

        await self._app(scope, receive, telling_send)


async def _refuse_first(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    # Nothing may be sent to a WebSocket's client before its connect message has been taken.
    if scope["type"] == "http" or (await receive())["type"] == "websocket.connect":
        await refuse(refused, scope, send)


def selecting_send(send: Send) -> Send:
    """Return a `send` that selects the subprotocol by which the token came, unless the app selects another."""

    async def wrapped(message: Message) -> None:
        await send(selecting(message))

    return wrapped


async def refuse(refused: Refused, scope: Scope, send: Send) -> None:
    """Answer a connection that has not been answered yet.

    A WebSocket is refused before it is accepted: with the same answer as a request where the server can do that (the
    ASGI extension `websocket.http.response`), else by closing it with 1008, for which the server answers 403.
    """
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refused.code})
            return
    body = refused.body
    fields = {"content-type": PROBLEM_TYPE, "content-length": str(len(body)), **refused.headers}
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": f"{kind}.start", "status": refused.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
