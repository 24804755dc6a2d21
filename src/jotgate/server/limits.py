"""What one address may ask of the server in a time. Counted before a request's body is read, or a password hashed.

Knows the settings and the stores of `jotgate.throttle`; knows no HTTP. With Redis all servers count together, and each
for itself while Redis is away.
"""

import hashlib
import ipaddress
from collections.abc import Callable
from typing import Final, Literal, get_args

import structlog

from jotgate.server.refusals import TooManyRequests
from jotgate.server.settings import Settings
from jotgate.throttle import Charge, Decision, FallbackStore, MemoryStore, RedisStore, Store, address_key, parse_limit

Kind = Literal["logins", "signups", "refreshes", "feed", "requests"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_REDIS_WITHIN_S: Final = 0.25  # a login waits so long for a Redis that has gone, once

Address = ipaddress.IPv4Address | ipaddress.IPv6Address | None


class Limits:
    """The limits of one server, and where they are counted.

    Args:
        monotonic: seconds that nobody sets, for what is counted in this process.
    """

    def __init__(
        self, settings: Settings, *, monotonic: Callable[[], float], log: structlog.stdlib.BoundLogger
    ) -> None:
        self._log = log
        self._limits = {kind: parse_limit(getattr(settings, f"limit_{kind}"), name=kind) for kind in KINDS}
        memory = MemoryStore(clock=monotonic)
        self._store: Store = memory
        if settings.redis_url is not None:
            # Servers of another issuer may use the same Redis.
            issuer = hashlib.sha256(settings.issuer.encode()).hexdigest()[:16]
            prefix = f"jotgate:limit:{issuer}:"
            shared = RedisStore(settings.redis_url.reveal(), timeout_s=_REDIS_WITHIN_S, prefix=prefix)
            self._store = FallbackStore(shared, memory, on_change=self._tell)

    async def admit(self, kind: Kind, address: Address) -> Decision:
        """Count one request of an address, an IPv6 one together with its /64.

        Raises:
            TooManyRequests: it is beyond the limit, and does not count.
        """
        decision = await self._store.take([self._charge(kind, address)])
        if not decision.allowed:
            raise TooManyRequests(decision)
        return decision

    async def give_back(self, kind: Kind, address: Address) -> None:
        """Count it not, after all: a login that succeeded is no guess."""
        await self._store.refund([self._charge(kind, address)])

    async def aclose(self) -> None:
        """Let go of this event loop's connections."""
        await self._store.aclose()

    def _charge(self, kind: Kind, address: Address) -> Charge:
        return Charge(self._limits[kind], address_key(None if address is None else str(address)))

    def _tell(self, counting: Literal["shared", "local"], fault: BaseException | None) -> None:
        if counting == "local":
            self._log.warning("limits_local", error=type(fault).__name__, reason="Redis is away: each process counts")
        else:
            self._log.info("limits_shared")
