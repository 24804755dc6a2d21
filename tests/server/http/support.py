"""What the API's tests share: a real app on a real database, driven as a browser or as a program would."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx2

from jotgate.integrations.asgi import ASGIApp
from jotgate.server import AuthApp, Settings

ORIGIN = "https://localhost:8443"
BROWSER = {"jotgate-client": "1", "origin": ORIGIN, "sec-fetch-site": "same-origin"}
PASSWORD = "correct horse battery staple"
EMAIL = "ada@example.com"


@dataclass
class Clock:
    """Unix time that a test sets."""

    now: int = 1_795_000_000

    def __call__(self) -> int:
        return self.now


@dataclass
class Api:
    """The app, a client that talks to it, and what tests want to look at."""

    app: AuthApp
    http: httpx2.AsyncClient
    clock: Clock
    settings: Settings

    async def post(
        self, path: str, json: object = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        return await self.http.post(path, json=json, headers=headers)

    async def signup(self, email: str = EMAIL, password: str = PASSWORD) -> httpx2.Response:
        return await self.post("/v1/signup", {"email": email, "password": password})

    async def login(self, email: str = EMAIL, password: str = PASSWORD) -> dict[str, Any]:
        """Log in as a program does: both tokens."""
        answer = await self.post("/v1/login", {"email": email, "password": password, "delivery": "body"})
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def browser_login(self) -> httpx2.Response:
        """Log in as a page of our own does; the client keeps the cookie."""
        answer = await self.post("/v1/login", {"email": EMAIL, "password": PASSWORD}, headers=BROWSER)
        assert answer.status_code == 200, answer.text
        return answer

    async def refresh(self, token: str) -> httpx2.Response:
        return await self.post("/v1/refresh", {"refresh_token": token})

    def dump(self) -> list[str]:
        """Everything in the database, to compare before and after."""
        with closing(sqlite3.connect(self.settings.data_dir / "jotgate.sqlite3")) as database:
            return list(database.iterdump())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def client_of(app: ASGIApp, base_url: str = ORIGIN, peer: str = "127.0.0.1") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(peer, 50_000)), base_url=base_url)


def code(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of a problem, after checking its form (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "code", "detail"}
    assert problem["status"] == answer.status_code
    return answer.status_code, problem["code"]
