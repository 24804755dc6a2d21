"""Protects FastAPI routes: `claims: Claims = Depends(auth.require("orders:read"))`, and limits them: `throttle("5/s")`.

Nothing else has to be set up.

>>> from fastapi import Depends, FastAPI
>>> from jotgate import Claims
>>> from jotgate.testing import TestAuth
>>> kit = TestAuth(audience="api")
>>> app, auth = FastAPI(), Auth(kit.verifier)
>>> @app.get("/orders")
... def orders(claims: Claims = Depends(auth.require("orders:read"))) -> dict[str, str]:
...     return {"of": claims.subject}
>>> client = kit.client(app)
>>> client.get("/orders", headers=kit.bearer("alice", scopes=["orders:read"])).json()
{'of': 'alice'}
>>> refusal = client.get("/orders", headers=kit.bearer("alice"))
>>> refusal.status_code, refusal.json()["code"]
(403, 'insufficient_scope')
>>> app.openapi()["paths"]["/orders"]["get"]["security"]
[{'bearer': []}]

>>> from jotgate.throttle import MemoryStore
>>> throttle = Throttle(MemoryStore(), auth=auth)
>>> @app.get("/search", dependencies=[Depends(throttle("100/minute", cost=60))])
... def search() -> str:
...     return "found"
>>> [client.get("/search", headers=kit.bearer("alice")).status_code for _ in range(2)]
[200, 429]
>>> client.get("/search", headers=kit.bearer("bob")).headers["ratelimit"]
'"100/60s";r=40;t=24'
"""

from collections.abc import Sequence

from fastapi import Request, Response
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from jotgate.core.claims import Claims
from jotgate.integrations import starlette
from jotgate.integrations.guard import ANY_LOGIN, Factor, Refused, StepUp, check_scopes
from jotgate.integrations.starlette import AuthRefused, Refusal, answering
from jotgate.integrations.throttling import Address, By, Meter, peer_address
from jotgate.throttle.fields import header_fields
from jotgate.throttle.limits import Limit
from jotgate.throttle.store import Store
from jotgate.verifier import Verifier

__all__ = ["Auth", "AuthRefused", "Throttle", "ThrottleRefused"]


class Auth:
    """One API's protection, made once; its methods make dependencies for HTTP and WebSocket routes alike.

    Args:
        verifier: judges the tokens. The event loop is never blocked, not even while keys are fetched.
        realm: names the protected space in challenges.
        trusted_proxies: addresses or networks of proxies that end TLS in front of this app, or how many there are.
        scheme_name: what the OpenAPI document calls the security scheme.

    Raises:
        SettingsError: with every fault at once.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        realm: str = "api",
        trusted_proxies: Sequence[str] | int = (),
        scheme_name: str = "bearer",
    ) -> None:
        self._auth = starlette.Auth(verifier, realm=realm, trusted_proxies=trusted_proxies)
        self._scheme_name = scheme_name

    def require(
        self, *scopes: str, max_age_s: int | None = None, factor: Factor | None = None, stream: bool = False
    ) -> "Require":
        """Make a dependency that gives the Claims of a token with all these scopes, and refuses everybody else.

        `stream=True` lets an EventSource in by its stream cookie too. `Security(auth.require(), scopes=[…])` asks for
        scopes as well, and shows them in the OpenAPI document. Equal calls make equal dependencies, so that
        `app.dependency_overrides[auth.require("orders:read")]` works.

        With `max_age_s` the person must have logged in at most so many seconds ago, with `factor="second"` by a second
        factor or a passkey; else the answer tells the client to have them log in again (401, RFC 9470).

        Raises:
            ValueError: a scope that is not one name, or a login that cannot be.
        """
        return Require(self._auth, self._scheme_name, scopes, StepUp(max_age_s, factor), stream=stream)

    def optional(self) -> "Optional":
        """Make a dependency that gives Claims, or None where no token came. A bad token is refused."""
        return Optional(self._auth, self._scheme_name)

    def stream_cookie(self, *scopes: str) -> "StreamCookie":
        """Make a dependency for the POST with which a page gets the cookie that its EventSource will send.

        It gives the Claims, like `require`, takes the `Authorization` header only, and sets the cookie on the answer
        that FastAPI makes. An endpoint that returns a Response of its own calls `set_stream_cookie` instead.
        """
        return StreamCookie(self._auth, self._scheme_name, scopes)

    def set_stream_cookie(self, request: Request, response: Response) -> None:
        """Set the stream cookie on a response; see `jotgate.integrations.starlette.Auth.set_stream_cookie`."""
        self._auth.set_stream_cookie(request, response)


class _Dependency(SecurityBase):
    """What FastAPI needs to know of each: how the scheme looks in OpenAPI, and which two are the same."""

    def __init__(
        self,
        auth: starlette.Auth,
        scheme_name: str,
        scopes: Sequence[str] = (),
        step_up: StepUp = ANY_LOGIN,
        *,
        stream: bool = False,
    ) -> None:
        check_scopes(scopes)
        self.model = HTTPBearerModel(bearerFormat="JWT")
        self.scheme_name = scheme_name
        self._auth = auth
        self._scopes = tuple(scopes)
        self._step_up = step_up
        self._stream = stream

    def _identity(self) -> tuple[object, ...]:
        return (type(self), id(self._auth), self._scopes, self._step_up, self._stream)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Dependency) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


class Require(_Dependency):
    """See `Auth.require`."""

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Claims:
        scopes = (*self._scopes, *security_scopes.scopes)
        return await self._auth.admit(connection, scopes, self._step_up, stream=self._stream)


class Optional(_Dependency):
    """See `Auth.optional`."""

    async def __call__(self, connection: HTTPConnection) -> Claims | None:
        return await self._auth.optional_claims(connection)


class StreamCookie(_Dependency):
    """See `Auth.stream_cookie`."""

    async def __call__(self, request: Request, response: Response) -> Claims:
        claims = await self._auth.claims(request, *self._scopes)
        self._auth.set_stream_cookie(request, response)
        return claims


class ThrottleRefused(Refusal):
    """A request beyond a limit (429), or one that came while limits could not be checked (503)."""


class Throttle:
    """One API's limits, made once; called, it makes dependencies for HTTP and WebSocket routes alike.

    Args:
        store: where requests are counted.
        auth: checks the token, if there is one, before the request is counted for its holder; a bad token is refused.
            Not needed where `BearerMiddleware` has done so, or where nothing is counted by tokens.
        by: whose allowance a request uses: its token's `"subject"`, `"client"` or `"scope"` (all tokens with exactly
            the same scopes together), its `"address"` (IPv6 by its /64), or what a function of the ASGI scope says.
            Requests without a token count for their address.
        address: tells a request's address; `forwarded_address(…)` makes one for an app behind proxies.
    """

    def __init__(
        self, store: Store, *, auth: Auth | None = None, by: By = "subject", address: Address = peer_address
    ) -> None:
        self._store = store
        self._optional = None if auth is None else auth.optional()
        self._by = by
        self._address = address

    def __call__(self, *limits: str | Limit, cost: int = 1, by: By | None = None) -> "Throttled":
        """Make a dependency that lets a request pass only within all these limits, and counts it.

        Limits of one name share their allowance, and texts that say the same have one name: `throttle("100/minute")`
        on two routes is one hundred for both, of which each route's requests take their `cost`. A limit of its own has
        a name of its own: `throttle(parse_limit("100/minute", name="search"))`. Equal calls make equal dependencies,
        which count a request once, and can be overridden in tests.

        Raises:
            InvalidLimit: a limit, or a cost, that could never work.
        """
        by = self._by if by is None else by
        return Throttled(Meter(self._store, limits, by=by, address=self._address), self._optional, by, cost)


class Throttled:
    """See `Throttle.__call__`."""

    def __init__(self, meter: Meter, optional: Optional | None, by: By, cost: int) -> None:
        meter.check_cost(cost)
        self._meter = meter
        self._optional = optional
        self._by = by
        self._cost = cost

    async def __call__(self, connection: HTTPConnection, response: Response) -> None:
        if self._by in ("subject", "client", "scope"):
            if self._optional is not None:
                await self._optional(connection)
            elif "jotgate.claims" not in connection.scope:
                raise RuntimeError("To count by tokens, give Throttle(auth=…) your Auth, or use BearerMiddleware.")
        try:
            decision = await self._meter.admit(connection.scope, self._cost)
        except Refused as refused:
            raise answering(connection, ThrottleRefused(refused)) from refused.__cause__
        for name, value in header_fields(decision).items():
            response.headers.append(name, value)

    def _identity(self) -> tuple[object, ...]:
        return (self._meter, self._optional, self._by, self._cost)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Throttled) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())
