"""An API as a user of jotgate has it, for `bench.sessions`: the same answer from an open and from a protected route.

Each app has the auth server mounted under `/auth` and asks it through its in-process verifier, so that a logout counts
at once: FastAPI with `Depends(auth.require(…))`, FastAPI behind `BearerMiddleware`, and a plain ASGI app behind the
same, where next to nothing hides what protecting costs. They read the variable BENCH_SERVER.
"""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
from fastapi import Depends, FastAPI, Request

from jotgate import Claims
from jotgate.integrations.asgi import BearerMiddleware
from jotgate.integrations.fastapi import Auth
from jotgate.server import Settings, create_app
from jotgate.server.app import AuthApp

SCOPE = "account:read"
PROTECTED_PATH, OPEN_PATHS = "/me", ("/open/first", "/open/last")
_AUTH = "/auth"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]


def make_fastapi() -> FastAPI:
    """Make the FastAPI app that asks for a token where a route says so."""
    server = _auth_server()
    app, auth = FastAPI(lifespan=server.lifespan), Auth(server.verifier())

    async def anybody() -> dict[str, str]:
        return {"sub": "anybody"}

    async def me(claims: Claims = Depends(auth.require(SCOPE))) -> dict[str, str]:
        return {"sub": claims.subject}

    _add_routes(app, me, anybody)
    app.mount(_AUTH, server)
    return app


def make_fastapi_behind_middleware() -> ASGIApp:
    """Make the FastAPI app that is protected as a whole."""
    app = FastAPI()

    async def me(request: Request) -> dict[str, str]:
        claims: Claims | None = request.scope.get("jotgate.claims")
        return {"sub": "anybody" if claims is None else claims.subject}

    _add_routes(app, me, me)
    return _behind_middleware(app)


def _add_routes(app: FastAPI, protected: Callable[..., Any], free: Callable[..., Any]) -> None:
    """Put the protected route between two open ones: each route that does not match first costs a request some time."""
    app.get(OPEN_PATHS[0])(free)
    app.get(PROTECTED_PATH)(protected)
    app.get(OPEN_PATHS[1])(free)
    app.get("/healthz")(free)


def make_asgi() -> ASGIApp:
    """Make the plain app, which is protected as a whole."""
    return _behind_middleware(_answer)


def _behind_middleware(app: ASGIApp) -> ASGIApp:
    server = _auth_server()
    api = BearerMiddleware(app, server.verifier(), scopes=(SCOPE,), public={*OPEN_PATHS, "/healthz"})

    async def parted(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await server(scope, receive, send)
        elif scope["path"].startswith(_AUTH + "/"):
            await server({**scope, "root_path": _AUTH}, receive, send)
        else:
            await api(scope, receive, send)

    return parted


async def _answer(scope: Message, receive: Receive, send: Send) -> None:
    claims: Claims | None = scope.get("jotgate.claims")
    body = msgspec.json.encode({"sub": "anybody" if claims is None else claims.subject})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _auth_server() -> AuthApp:
    orders = json.loads(os.environ["BENCH_SERVER"])
    # Tokens that outlive a run.
    return create_app(
        Settings(
            issuer=orders["issuer"],
            data_dir=Path(orders["data_dir"]),
            http=True,
            access_token_ttl_s=3600,
            **orders.get("settings", {}),
        )
    )
