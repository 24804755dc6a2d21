"""An API as a user of jotgate has it, for `bench.sessions`: the same answer from an open and from a protected route.

Two apps, each with the auth server mounted under `/auth` and asked through its in-process verifier, so that a logout
counts at once: FastAPI with `Depends(auth.require(…))`, and a plain ASGI app behind `BearerMiddleware`, where next to
nothing hides what protecting costs. Both read the variable BENCH_SERVER.
"""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
from fastapi import Depends, FastAPI

from jotgate import Claims
from jotgate.integrations.asgi import BearerMiddleware
from jotgate.integrations.fastapi import Auth
from jotgate.server import Settings, create_app
from jotgate.server.app import AuthApp

SCOPE = "account:read"
_AUTH = "/auth"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def make_fastapi() -> FastAPI:
    """Make the FastAPI app."""
    server = _auth_server()
    app, auth = FastAPI(lifespan=server.lifespan), Auth(server.verifier())
    app.mount(_AUTH, server)

    @app.get("/me")
    async def me(claims: Claims = Depends(auth.require(SCOPE))) -> dict[str, str]:
        return {"sub": claims.subject}

    @app.get("/open")
    async def anybody() -> dict[str, str]:
        return {"sub": "anybody"}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def make_asgi() -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Make the plain app."""
    server = _auth_server()
    api = BearerMiddleware(_answer, server.verifier(), scopes=(SCOPE,), public={"/open", "/healthz"})

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await server(scope, receive, send)
        elif scope["path"].startswith(_AUTH + "/"):
            await server({**scope, "root_path": _AUTH}, receive, send)
        else:
            await api(scope, receive, send)

    return app


async def _answer(scope: Message, receive: Receive, send: Send) -> None:
    claims: Claims | None = scope.get("jotgate.claims")
    body = msgspec.json.encode({"sub": "anybody" if claims is None else claims.subject})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _auth_server() -> AuthApp:
    orders = json.loads(os.environ["BENCH_SERVER"])
    return create_app(Settings(issuer=orders["issuer"], data_dir=Path(orders["data_dir"]), http=True))
