"""Test clients that speak HTTPS by default, as everybody who sends a token must; needs Starlette and httpx2."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin

import httpx2
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.types import ASGIApp


class SecureTestClient(TestClient):
    """Starlette's TestClient, whose WebSockets are as secure as its requests."""

    __test__ = False

    def websocket_connect(
        self,
        url: str,
        subprotocols: Sequence[str] | None = None,
        **kwargs: Any,  # noqa: ANN401 # those of TestClient
    ) -> WebSocketTestSession:
        """Connect to a path of the base URL, over WSS where that is https."""
        base = self.base_url.copy_with(scheme={"https": "wss", "http": "ws"}[self.base_url.scheme])
        return super().websocket_connect(urljoin(str(base), url), subprotocols, **kwargs)


def secure_async_client(app: ASGIApp, **options: Any) -> httpx2.AsyncClient:  # noqa: ANN401 # those of AsyncClient
    """Return an async client for an ASGI app."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), **options)
