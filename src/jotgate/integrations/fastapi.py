"""Protects FastAPI routes: `claims: Claims = Depends(auth.require("orders:read"))`. Nothing else has to be set up.

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
"""

from collections.abc import Sequence

from fastapi import Request, Response
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from jotgate.core.claims import Claims
from jotgate.integrations import starlette
from jotgate.integrations.guard import check_scopes
from jotgate.integrations.starlette import AuthRefused
from jotgate.verifier import Verifier

__all__ = ["Auth", "AuthRefused"]


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

    def require(self, *scopes: str, stream: bool = False) -> "Require":
        """Make a dependency that gives the Claims of a token with all these scopes, and refuses everybody else.

        `stream=True` lets an EventSource in by its stream cookie too. `Security(auth.require(), scopes=[…])` asks for
        scopes as well, and shows them in the OpenAPI document. Equal calls make equal dependencies, so that
        `app.dependency_overrides[auth.require("orders:read")]` works.

        Raises:
            ValueError: a scope that is not one name.
        """
        return Require(self._auth, self._scheme_name, scopes, stream=stream)

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
        self, auth: starlette.Auth, scheme_name: str, scopes: Sequence[str] = (), *, stream: bool = False
    ) -> None:
        check_scopes(scopes)
        self.model = HTTPBearerModel(bearerFormat="JWT")
        self.scheme_name = scheme_name
        self._auth = auth
        self._scopes = tuple(scopes)
        self._stream = stream

    def _identity(self) -> tuple[object, ...]:
        return (type(self), id(self._auth), self._scopes, self._stream)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Dependency) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


class Require(_Dependency):
    """See `Auth.require`."""

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Claims:
        return await self._auth.claims(connection, *self._scopes, *security_scopes.scopes, stream=self._stream)


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
