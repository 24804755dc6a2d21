"""For the tests of apps that jotgate protects: an issuer, a clock and an HTTPS client, in three lines, no network.

>>> from fastapi import Depends, FastAPI
>>> from jotgate import Claims, Verifier
>>> from jotgate.integrations.fastapi import Auth
>>> def make_app(verifier: Verifier) -> FastAPI:
...     app, auth = FastAPI(), Auth(verifier)
...     @app.get("/api/orders")
...     def orders(claims: Claims = Depends(auth.require("orders:read"))) -> list[str]:
...         return [f"an order of {claims.subject}"]
...     return app

The three lines:

>>> kit = TestAuth(audience="api")
>>> client = kit.client(make_app(kit.verifier))
>>> client.get("/api/orders", headers=kit.bearer("alice", scopes=["orders:read"])).json()
['an order of alice']

What must be refused is as easy to make:

>>> client.get("/api/orders", headers=kit.bearer("alice", expired=True)).json()["code"]
'token_expired'
>>> client.get("/api/orders", headers=kit.bearer("alice", forged=True)).json()["code"]
'bad_signature'

And time is the test's to move:

>>> headers = kit.bearer("alice", scopes=["orders:read"])
>>> kit.clock.advance(3600)
>>> client.get("/api/orders", headers=headers).json()["code"]
'token_expired'

As pytest fixtures::

    @pytest.fixture
    def kit() -> TestAuth:
        return TestAuth(audience="api")

    @pytest.fixture
    def client(kit: TestAuth) -> TestClient:
        return kit.client(make_app(kit.verifier))

Nothing here switches anything off: the kit's verifier is an ordinary one that trusts the kit's key and no other, and
it reaches an app only where the test hands it over.
"""

from jotgate.testing.kit import TestAuth, TestClock

__all__ = ["TestAuth", "TestClock"]
