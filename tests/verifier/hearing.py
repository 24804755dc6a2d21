"""What tests of a verifier that follows a feed ask of it, from outside."""

from __future__ import annotations

import threading
import time

from jotgate import TokenRevoked, Verifier
from jotgate.verifier.feed import FeedStatus
from tests.verifier.feed_server import FakeFeed, wait_until
from tests.verifier.servers import WITHIN_S

BOUND_S = 1.0
"""What is promised to verifiers with a live path."""


class Clock:
    """A monotonic clock that a test can move on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def status(verifier: Verifier) -> FeedStatus:
    told = verifier.status().feed
    assert told is not None
    return told


def refused(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except TokenRevoked:
        return True
    return False


def wait_mode(verifier: Verifier, mode: str) -> None:
    wait_until(lambda: status(verifier).mode == mode and status(verifier).last_error is None)


def check_heard(verifier: Verifier, feed: FakeFeed, sid: str, within_s: float = WITHIN_S) -> None:
    """A session that ends now is refused before long."""
    token = feed.issuer.token(session=sid)
    assert verifier.verify(token).session_id == sid
    feed.revoke(sid)
    wait_until(lambda: refused(verifier, token), within_s)


def threads(name: str = "jotgate-revocations") -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == name}
