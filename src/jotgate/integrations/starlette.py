"""Protects single routes of a Starlette app: `@auth.require("orders:read")`; for a whole app see `integrations.asgi`.

>>> from starlette.applications import Starlette
>>> from starlette.requests import Request
>>> from starlette.responses import JSONResponse
>>> from starlette.routing import Route
>>> from jotgate.testing import TestAuth
>>> kit = TestAuth(audience="api")
>>> auth = Auth(kit.verifier)
>>> @auth.require("orders:read")
... async def orders(request: Request) -> JSONResponse:
...     return JSONResponse({"of": request.state.claims.subject})
>>> client = kit.client(Starlette(routes=[Route("/orders", orders)]))
>>> client.get("/orders", headers=kit.bearer("alice", scopes=["orders:read"])).json()
{'of': 'alice'}
>>> client.get("/orders").status_code
401
"""

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketState

from jotgate.core.claims import Claims
from jotgate.integrations.asgi import POLICY_VIOLATION, PROBLEM_TYPE, refuse
from jotgate.integrations.guard import Factor, Guard, Refused, StepUp, came_by_subprotocol, check_scopes, selecting
from jotgate.verifier import Verifier

_P = ParamSpec("_P")


class Refusal(HTTPException):
    """A request that may not pass, answered as problem+json (RFC 9457).

    An app that wants another body registers an exception handler for the class; `headers` are then still due.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.status, refused.detail, headers=refused.headers)
        self.refused = refused


class AuthRefused(Refusal):
    """It lacks a token that is good for this; the answer has the challenge of RFC 6750."""


class Auth:
    """One API's protection, made once and used on any number of routes, HTTP and WebSocket alike.

    Args:
        verifier: judges the tokens.
        realm: names the protected space in challenges.
        trusted_proxies: addresses or networks of proxies that end TLS in front of this app, or how many there are.

    Raises:
        SettingsError: with every fault at once.
    """

    def __init__(self, verifier: Verifier, *, realm: str = "api", trusted_proxies: Sequence[str] | int = ()) -> None:
        self._guard = Guard(verifier, realm=realm, trusted_proxies=trusted_proxies)

    def require(
        self, *scopes: str, max_age_s: int | None = None, factor: Factor | None = None, stream: bool = False
    ) -> Callable[[Callable[_P, Any]], Callable[_P, Coroutine[Any, Any, Any]]]:
        """Decorate an endpoint (function or method, `async` or not): it runs only for tokens with all the scopes.

        The claims are in `request.state.claims` then. `stream=True` lets an EventSource in by its stream cookie too.
        With `max_age_s` the person must have logged in at most so many seconds ago, with `factor="second"` by a second
        factor or a passkey; else the answer tells the client to have them log in again (401, RFC 9470).

        Raises:
            ValueError: a scope that is not one name, or a login that cannot be.
        """
        check_scopes(scopes)
        step_up = StepUp(max_age_s, factor)

        def decorate(endpoint: Callable[_P, Any]) -> Callable[_P, Coroutine[Any, Any, Any]]:
            is_async = inspect.iscoroutinefunction(endpoint)

            @functools.wraps(endpoint)
            async def guarded(*args: _P.args, **kwargs: _P.kwargs) -> Any:  # noqa: ANN401 # whatever the endpoint gives
                connection = next(arg for arg in (*args, *kwargs.values()) if isinstance(arg, HTTPConnection))
                await self.admit(connection, scopes, step_up, stream=stream)
                if is_async:
                    return await endpoint(*args, **kwargs)
                return await run_in_threadpool(endpoint, *args, **kwargs)

            return guarded

        return decorate

    async def claims(
        self,
        connection: HTTPConnection,
        *scopes: str,
        max_age_s: int | None = None,
        factor: Factor | None = None,
        stream: bool = False,
    ) -> Claims:
        """Return the claims of a request or a WebSocket that is not accepted yet (arguments as for `require`).

        Raises:
            AuthRefused: answered by itself in any Starlette or FastAPI app.
            ValueError: a login that cannot be.
        """
        return await self.admit(connection, scopes, StepUp(max_age_s, factor), stream=stream)

    async def admit(
        self, connection: HTTPConnection, scopes: Sequence[str], step_up: StepUp, *, stream: bool
    ) -> Claims:
        """Do the same as `claims`, with a `StepUp` that was made before."""
        try:
            claims = await self._guard.admit(connection.scope, scopes, step_up=step_up, stream=stream)
        except Refused as refused:
            raise answering(connection, AuthRefused(refused)) from refused.__cause__
        _select_subprotocol(connection)
        return claims

    async def optional_claims(self, connection: HTTPConnection, *, stream: bool = False) -> Claims | None:
        """Do the same for what may also be used without a token: None then. A bad token is refused."""
        try:
            claims = await self._guard.admit_any(connection.scope, stream=stream)
        except Refused as refused:
            raise answering(connection, AuthRefused(refused)) from refused.__cause__
        _select_subprotocol(connection)
        return claims

    def set_stream_cookie(self, request: HTTPConnection, response: Response) -> None:
        """Give the request's token to the browser once more, as a cookie that EventSource will send.

        The request's bearer header must have been admitted by this Auth; make it a POST. The cookie is `__Host-Http-`,
        HttpOnly, Secure, SameSite=Strict, ends with the token, and opens only routes that say `stream=True`, and
        those only for a GET that asks for `text/event-stream` and that the browser calls a script's request
        (`Sec-Fetch-Dest: empty`) from a page of the same site.

        Raises:
            RuntimeError: no bearer header was admitted, which is a fault of the program.
            AuthRefused: the token is too long for a cookie.
        """
        try:
            cookie = self._guard.stream_cookie(request.scope)
        except Refused as refused:
            raise answering(request, AuthRefused(refused)) from None
        response.headers.append("set-cookie", cookie)
        response.headers["cache-control"] = "no-store"


async def answer_refused(connection: HTTPConnection, refusal: Exception) -> Response | None:
    """Answer a Refusal: the exception handler that `answering` brings along."""
    if not isinstance(refusal, Refusal):
        raise refusal
    refused = refusal.refused
    if not isinstance(connection, WebSocket):
        return Response(refused.body, refused.status, refused.headers, PROBLEM_TYPE)
    if connection.application_state is WebSocketState.CONNECTED:
        await connection.close(POLICY_VIOLATION, refused.code)
        return None
    if connection.client_state is WebSocketState.CONNECTING:
        await connection.receive()
    await refuse(refused, connection.scope, connection.send)
    return None


def answering(connection: HTTPConnection, refusal: Refusal) -> Refusal:
    """Return the exception to raise, sure to be answered as it should be.

    Starlette and FastAPI look a handler up when the exception arrives, in what their exception middleware left in the
    scope. So ours is put there now, unless the app has one of its own: nobody has to install anything. Where there is
    no such place, the app's handler for HTTPException gives the same status and headers with its own body.
    """
    handlers = connection.scope.get("starlette.exception_handlers")
    if handlers:
        handlers[0].setdefault(type(refusal), answer_refused)
    return refusal


def _select_subprotocol(connection: HTTPConnection) -> None:
    if not isinstance(connection, WebSocket) or not came_by_subprotocol(connection.scope):
        return
    send = connection.send

    async def selecting_send(message: Message) -> None:
        await send(selecting(message))

    # `accept` sends through this method, so that endpoints need not know how the token came.
    connection.send = selecting_send  # type: ignore[method-assign]
