"""What every flow is handed: the parts that ``app`` has wired, and nothing global."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from msgspec import Struct

from jotgate.issuer import Issuer
from jotgate.server.audit_queue import AuditQueue
from jotgate.server.errands import Errands
from jotgate.server.feed import Feed
from jotgate.server.flows.readiness import Readiness
from jotgate.server.keys import KeyRing
from jotgate.server.limits import Limits, Slowdown
from jotgate.server.live import LiveState
from jotgate.server.metrics import Metrics
from jotgate.server.passwords import Passwords
from jotgate.server.records import Account
from jotgate.server.refresh_tokens import RefreshTokens
from jotgate.server.settings import Settings
from jotgate.server.store import Store
from jotgate.verifier import Verifier

CLIENT_ID: Final = "web"


class PublicAccount(Struct, frozen=True):
    """What may be told about an account: to its owner, and to the hook that adds claims."""

    id: str
    email: str
    scopes: tuple[str, ...]
    created_at: int


ClaimsFor = Callable[[PublicAccount], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Deps:
    """The parts that flows work with. ``random`` returns as many random bytes as it is asked for."""

    settings: Settings
    store: Store
    passwords: Passwords
    common_passwords: Collection[str]
    keys: KeyRing
    verifier: Verifier
    live: LiveState
    feed: Feed
    limits: Limits
    slowdown: Slowdown
    metrics: Metrics
    readiness: Readiness
    audit: AuditQueue
    """For what changes nothing; the rest is written by the store."""
    tell_courier: Callable[[], None]
    """A mail is in the outbox."""
    errands: Errands
    clock: Callable[[], int]
    random: Callable[[int], bytes]
    claims_for: ClaimsFor | None
    log: structlog.stdlib.BoundLogger

    @property
    def issuer(self) -> Issuer:
        """Signs access tokens with the key that signs now. Raises Busy where this process cannot use it."""
        return self.keys.issuer

    @property
    def refresh_tokens(self) -> RefreshTokens:
        """Makes and checks refresh tokens with the keys of now. Raises Busy where this process cannot use them."""
        return self.keys.refresh_tokens


def public(account: Account) -> PublicAccount:
    """Return what may be told about the account."""
    return PublicAccount(account.id, account.email, account.scopes, account.created_at)
