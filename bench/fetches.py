"""Why a verifier fetched its issuer's key set: each fetch is judged from outside, by what it was allowed then.

It knows what happened around the verifier and what is promised of it; it asks the verifier for no reason.
"""

import os
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from jotgate.verifier.transport import Answer, HttpsTransport

FIRST: Final = "the first"
SCHEDULE: Final = "by the schedule"
RETRY: Final = "after one that failed"
KEY_EVENT: Final = "for a key event"
UNKNOWN_KEY: Final = "for an unknown key"
BEYOND: Final = "beyond schedule, key event and cooldown"

_FIRST_RETRY_S = 0.25  # half a second, up to half of it sooner
# Between a decision and the request that is noted here lies the exchange for the metadata; and of a key event, this
# process hears a moment after the verifier.
_SLACK_S = 0.05


class Fetch(NamedTuple):
    """One exchange for the key set, in seconds of the system's monotonic clock."""

    began: float
    ended: float
    succeeded: bool


class Counting(HttpsTransport):
    """The real transport, which notes the exchanges for the key set."""

    def __init__(self, ca_file: str | os.PathLike[str]) -> None:
        super().__init__(ca_file)
        self.fetches: list[Fetch] = []

    def __call__(self, url: str, timeout_s: float) -> Answer:
        """Fetch, and note it."""
        if not url.endswith("/jwks.json"):
            return super().__call__(url, timeout_s)
        began, succeeded = time.monotonic(), False
        try:
            answer = super().__call__(url, timeout_s)
            succeeded = answer.status == 200
        finally:
            self.fetches.append(Fetch(began, time.monotonic(), succeeded))
        return answer


def reasons(
    fetches: Sequence[Fetch],
    *,
    key_events: Sequence[float],
    strangers: Sequence[float],
    soonest_s: float,
    cooldown_s: float,
) -> Sequence[str]:
    """Give for each fetch what allowed it, else BEYOND.

    Args:
        fetches: all of one verifier, in their order.
        key_events: when the feed told of a key that is revoked; each is good for one fetch, at once.
        strangers: when a token was presented whose key was not known.
        soonest_s: the time after a fetch that succeeded from which on the schedule may ask again.
        cooldown_s: the time from one fetch for an unknown key to the next.
    """
    found: list[str] = []
    events_left = list(key_events)
    cool_at = float("-inf")
    before: Fetch | None = None
    for fetch in fetches:
        if before is None:
            reason = FIRST
        elif fetch.began >= before.ended + (soonest_s if before.succeeded else _FIRST_RETRY_S):
            reason = SCHEDULE if before.succeeded else RETRY
        elif events := [at for at in events_left if before.began - _SLACK_S < at < fetch.began + _SLACK_S]:
            reason = KEY_EVENT
            events_left.remove(events[0])
        elif fetch.began >= cool_at and any(before.began - _SLACK_S < at <= fetch.began for at in strangers):
            reason = UNKNOWN_KEY
            cool_at = fetch.began + cooldown_s - _SLACK_S
        else:
            reason = BEYOND
        found.append(reason)
        before = fetch
    return found
