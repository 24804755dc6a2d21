"""Whether a request is within its limits, decided on its ASGI scope: whom it counts for, and how a refusal is worded.

It must not know any framework. A refusal tells limits and times, and never whose allowance it was.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from jotgate.core.claims import Claims
from jotgate.core.forwarded import TrustedProxies, resolve_sender
from jotgate.integrations.guard import Refused, Scope, texts
from jotgate.throttle.addresses import address_key
from jotgate.throttle.decisions import Decision
from jotgate.throttle.fields import header_fields, problem
from jotgate.throttle.limits import Charge, InvalidLimit, Limit, check_charges, parse_limit
from jotgate.throttle.store import Store, StoreUnavailable

Address = Callable[[Scope], str | None]
"""Tells the address that a request came from; None where none is known."""

By = Literal["subject", "client", "scope", "address"] | Callable[[Scope], str]
"""Whose allowance a request uses; see `Meter`."""

_BY: Final = ("subject", "client", "scope", "address")
_RETRY_AFTER_S: Final = 1
_CLAIMS: Final = "jotgate.claims"


def peer_address(scope: Scope) -> str | None:
    """Tell the address of the connection. Behind a proxy that is the proxy's: see `forwarded_address`."""
    client = scope.get("client")
    return client[0] if client else None


def forwarded_address(trusted_proxies: Sequence[str] | int) -> Address:
    """Make a function that tells the nearest address that is not one of the trusted proxies'.

    Args:
        trusted_proxies: addresses and networks of proxies, or how many there always are. `Forwarded` and
            `X-Forwarded-For` count as far as these vouch for them, and from nobody else.

    Raises:
        ValueError: naming what is no address, network or count.
    """
    proxies = TrustedProxies.parse(trusted_proxies)

    def address(scope: Scope) -> str | None:
        sender = resolve_sender(
            peer_address(scope),
            scope.get("scheme", "http"),
            forwarded=texts(scope, b"forwarded"),
            forwarded_for=texts(scope, b"x-forwarded-for"),
            proxies=proxies,
        )
        return None if sender.address is None else str(sender.address)

    return address


class Throttled(Refused):
    """A request beyond a limit: 429, and when to come back."""

    def __init__(self, decision: Decision) -> None:
        self._problem = problem(decision)
        super().__init__(self._problem["status"], self._problem["code"], self._problem["detail"])
        self.decision = decision

    @property
    def headers(self) -> dict[str, str]:
        """What the answer needs besides its body."""
        return super().headers | header_fields(self.decision)

    @property
    def body(self) -> bytes:
        """The problem document, of the type that the draft registers."""
        return msgspec.json.encode(self._problem)


class Meter:
    """Counts requests against some limits at once, each for one allowance.

    Args:
        store: where they are counted.
        limits: texts or Limits, whose names differ.
        by: whose allowance a request uses: its token's `"subject"`, its `"client"` (the subject where it names none),
            its `"scope"` (all tokens with exactly the same scopes together), the sender's `"address"` (IPv6 by its
            /64), or what a function says. Without claims in the ASGI scope the first three mean the address.
        address: tells the sender's address.

    Raises:
        InvalidLimit: limits that could not be told apart, or none at all.
    """

    def __init__(
        self, store: Store, limits: Sequence[str | Limit], *, by: By = "subject", address: Address = peer_address
    ) -> None:
        self.limits = tuple(parse_limit(limit) if isinstance(limit, str) else limit for limit in limits)
        if not self.limits:
            raise InvalidLimit("A throttle needs a limit, '100/minute' for instance.")
        if not callable(by) and by not in _BY:
            raise ValueError(f"by is one of {', '.join(_BY)}, or a function, and not {by!r}")
        self._store = store
        self._by = by
        self._address = address
        self.check_cost(1)

    def check_cost(self, cost: int) -> None:
        """Refuse a cost that could never be paid.

        Raises:
            InvalidLimit: it is negative, or above the burst of a limit.
        """
        check_charges([Charge(limit, "", cost) for limit in self.limits])

    async def admit(self, scope: Scope, cost: int) -> Decision:
        """Count a request.

        Raises:
            Refused: 429 beyond a limit (`Throttled`), 503 where the store does not answer.
        """
        key = self._key(scope)
        try:
            decision = await self._store.take([Charge(limit, key, cost) for limit in self.limits])
        except StoreUnavailable as outage:
            detail = "Limits cannot be checked at the moment."
            raise Refused(503, outage.code, detail, retry_after_s=_RETRY_AFTER_S) from outage
        if not decision.allowed:
            raise Throttled(decision)
        return decision

    def _identity(self) -> tuple[object, ...]:
        return (id(self._store), self.limits, self._by, self._address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Meter) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _key(self, scope: Scope) -> str:
        if callable(self._by):
            return f"own {self._by(scope)}"
        claims = scope.get(_CLAIMS)
        if self._by == "address" or not isinstance(claims, Claims):
            return f"address {address_key(self._address(scope))}"
        # Another issuer's subjects are other people.
        if self._by == "scope":
            return f"scope {claims.issuer} {' '.join(sorted(claims.scopes))}"
        if self._by == "client" and claims.client_id is not None:
            return f"client {claims.issuer} {claims.client_id}"
        return f"subject {claims.issuer} {claims.subject}"
