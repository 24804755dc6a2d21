"""`TestAuth` and its clock: an ordinary Issuer and Verifier with a key made for this process; they know no framework.

The test clients need `jotgate[testing]` (Starlette and httpx2) and are imported when they are first asked for.
"""

import functools
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jotgate.core.claims import MAX_LEEWAY_S
from jotgate.core.jwk import Key, KeySet
from jotgate.issuer import Issuer
from jotgate.keygen import generate_key
from jotgate.verifier import Verifier

if TYPE_CHECKING:
    import httpx2
    from starlette.testclient import TestClient
    from starlette.types import ASGIApp

BASE_URL = "https://testserver"


class TestClock:
    """A wall clock that stands still until the test moves it.

    >>> clock = TestClock(1_800_000_000)
    >>> clock.advance(60)
    >>> clock()
    1800000060
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    def __init__(self, now: int | None = None) -> None:
        """Start at `now` (Unix seconds), or at the real time."""
        self.now = int(time.time()) if now is None else now

    def __call__(self) -> int:
        """Return the time in Unix seconds."""
        return self.now

    def advance(self, seconds: int) -> None:
        """Let time pass; a negative number turns it back."""
        self.now += seconds

    def set(self, now: int) -> None:
        """Set the time in Unix seconds."""
        self.now = now


@functools.cache
def _keys_of_process() -> tuple[Key, Key]:
    """Return the key that the kit's verifiers know, and one of the same name that they do not know."""
    known = generate_key("ES256")
    return known, generate_key("ES256", kid=known.kid)


class TestAuth:
    """An issuer for tests, with a verifier that believes it.

    Args:
        audience: of the API under test.
        issuer: any name; no request is ever made to it.
        clock: shared by issuer and verifier; stands still until the test moves it.
        ttl_s: life of the tokens.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    def __init__(
        self,
        audience: str = "api",
        *,
        issuer: str = "https://issuer.test",
        clock: TestClock | None = None,
        ttl_s: int = 300,
    ) -> None:
        known, stranger = _keys_of_process()
        self.audience = audience
        self.issuer = issuer
        self.clock = clock or TestClock()
        self.keys = KeySet([known.public])
        self.verifier = Verifier(issuer=issuer, audience=audience, keys=self.keys, clock=self.clock)
        self._ttl_s = ttl_s
        self._known = known
        self._stranger = stranger

    def token(
        self,
        subject: str,
        *,
        scopes: Iterable[str] = (),
        audience: str | None = None,
        issuer: str | None = None,
        session: str | None = None,
        client_id: str = "web",
        auth_time: int | None = None,
        methods: Iterable[str] = (),
        expired: bool = False,
        early: bool = False,
        forged: bool = False,
        **claims: Any,  # noqa: ANN401 # whatever JSON can say
    ) -> str:
        """Return an access token as a jotgate server would issue it; other keyword arguments become claims.

        Args:
            subject: the account's id.
            scopes: what the token allows.
            audience: another API's, to be refused.
            issuer: another issuer's name, to be refused.
            session: the `sid`.
            client_id: the client that asked for the token.
            auth_time: when the person logged in: `kit.clock() - 600` for ten minutes ago.
            methods: how they did, in names of RFC 8176: `["pwd", "otp", "mfa"]` for a login with a second factor.
            expired: the token's end has passed, leeway included.
            early: the token begins in the future, leeway included.
            forged: signed by a key that only claims to be the issuer's.

        Raises:
            ClaimRefused: an own claim under a registered name.

        >>> kit = TestAuth(audience="api")
        >>> claims = kit.verifier.verify(kit.token("alice", scopes=["orders:read"], tenant="acme"))
        >>> claims.subject, claims["tenant"]
        ('alice', 'acme')
        """
        now = self.clock()
        if expired:
            now -= self._ttl_s + MAX_LEEWAY_S
        if early:
            now += MAX_LEEWAY_S + 1
        signer = Issuer(
            issuer=issuer or self.issuer,
            keys=self._stranger if forged else self._known,
            ttl_s=self._ttl_s,
            clock=lambda: now,
        )
        return signer.issue(
            subject,
            audience=audience or self.audience,
            scopes=scopes,
            session=session,
            client_id=client_id,
            auth_time=auth_time,
            methods=methods,
            claims=claims,
        )

    def bearer(self, subject: str, **options: Any) -> dict[str, str]:  # noqa: ANN401 # those of `token`
        """Return the headers of a request with a token (arguments as for `token`)."""
        return {"Authorization": f"Bearer {self.token(subject, **options)}"}

    def client(self, app: "ASGIApp", **options: Any) -> "TestClient":  # noqa: ANN401 # those of TestClient
        """Return Starlette's (and FastAPI's) TestClient for an app, speaking HTTPS and, for WebSockets, WSS.

        Further arguments are TestClient's. Use it as a context manager to run the app's lifespan.
        """
        from jotgate.testing.client import SecureTestClient  # noqa: PLC0415 # needs the extra `testing`

        return SecureTestClient(app, **{"base_url": BASE_URL, **options})

    def async_client(self, app: "ASGIApp", **options: Any) -> "httpx2.AsyncClient":  # noqa: ANN401 # those of AsyncClient
        """Return an httpx2.AsyncClient for an app, speaking HTTPS. Further arguments are AsyncClient's."""
        from jotgate.testing.client import secure_async_client  # noqa: PLC0415 # needs the extra `testing`

        return secure_async_client(app, **{"base_url": BASE_URL, **options})
