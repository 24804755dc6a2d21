"""The outbox as the courier sees it: what the store keeps, with decoys taken out on the way."""

from collections.abc import Callable
from typing import Final

from jotgate.core.encoding import encode_segment
from jotgate.server.mail_seals import DECOY
from jotgate.server.records import QueuedMail
from jotgate.server.store import Store

_CLAIM_BYTES: Final = 16
_MOST_LOOKS: Final = 64  # at one call: a flood of decoys must not hold the courier's other work up


class StoreOutbox:
    """One store's mails, for one courier.

    Args:
        random: returns as many random bytes as it is asked for.
    """

    def __init__(self, store: Store, random: Callable[[int], bytes]) -> None:
        self._store = store
        self._random = random

    async def claim_mails(self, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        """See `Store.claim_mails`. What is sent to nobody is taken out here."""
        mails: list[QueuedMail] = []
        for _ in range(_MOST_LOOKS):
            wanted = limit - len(mails)
            claimed = await self._claim(now=now, limit=wanted, lease_s=lease_s)
            mails += [each for each in claimed if each.kind != DECOY]
            for decoy in (each for each in claimed if each.kind == DECOY):
                await self._store.mail_sent(decoy.id, decoy.claim)
            if len(claimed) < wanted or len(mails) == limit:
                break
        return mails

    async def mail_sent(self, id: str, claim: str) -> None:  # noqa: A002  the field's name
        """See `Store.mail_sent`."""
        await self._store.mail_sent(id, claim)

    async def mail_failed(self, id: str, claim: str, *, due_at: int | None) -> None:  # noqa: A002  the field's name
        """See `Store.mail_failed`; without a time, it is taken out."""
        if due_at is None:
            await self._store.mail_sent(id, claim)
        else:
            await self._store.mail_failed(id, claim, due_at=due_at)

    async def _claim(self, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        claim = encode_segment(self._random(_CLAIM_BYTES))
        return await self._store.claim_mails(claim, now=now, limit=limit, lease_s=lease_s)
