"""The outbox as the courier sees it: the store's, with a name for each claim."""

from collections.abc import Callable
from typing import Final

from jotgate.core.encoding import encode_segment
from jotgate.server.records import QueuedMail
from jotgate.server.store import Store

_CLAIM_BYTES: Final = 16


class StoreOutbox:
    """One store's mails, for one courier.

    Args:
        random: returns as many random bytes as it is asked for.
    """

    def __init__(self, store: Store, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._random = random

    async def claim_mails(self, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        """See `Store.claim_mails`."""
        claim = encode_segment(self._random(_CLAIM_BYTES))
        return await self._store.claim_mails(claim, now=now, limit=limit, lease_s=lease_s)

    async def mail_sent(self, id: str, claim: str) -> None:  # noqa: A002  the field's name
        """See `Store.mail_sent`."""
        await self._store.mail_sent(id, claim)

    async def mail_failed(self, id: str, claim: str, *, due_at: int | None) -> None:  # noqa: A002  the field's name
        """See `Store.mail_failed`; without a time, it is taken out."""
        if due_at is None:
            await self._store.mail_sent(id, claim)
        else:
            await self._store.mail_failed(id, claim, due_at=due_at)
