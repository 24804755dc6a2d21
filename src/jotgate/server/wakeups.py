"""Who says "look into the log now": this process's own changes, the store's news of others', and Redis.

A wake-up carries nothing. Whoever is woken reads the log, so that one too many costs a look, and one that gets lost
costs the time until the next.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from jotgate.server.secret import Secret
from jotgate.server.store import Store

if TYPE_CHECKING:
    from jotgate.server.redis_bus import RedisBus


class Wakeups:
    """What the follower's event loop waits for: this process, the store, and Redis where there is one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: Store, redis_url: Secret | None, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._loop = loop
        self._store = store
        self._told = asyncio.Event()
        self._redis = None if redis_url is None else _redis_bus(redis_url, self.wake, log)

    def tell(self) -> None:
        """Wake this follower, and others'. Any thread may call it; it neither waits nor fails."""
        self.wake()
        if self._redis is not None:
            self._redis.tell()

    def wake(self) -> None:
        """Wake this follower. Any thread may call it; it neither waits nor fails."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody follows any more
            self._loop.call_soon_threadsafe(self._told.set)

    def close(self) -> None:
        """Listen to nobody any more."""
        if self._redis is not None:
            self._redis.close()

    async def wait(self, timeout_s: float) -> None:
        """Return when there may be something new, and in any case after the time.

        Raises StoreError: the database does not answer.
        """
        told = asyncio.ensure_future(self._told.wait())
        changed = asyncio.ensure_future(self._store.wait_changed(timeout_s))
        try:
            await asyncio.wait([told, changed], return_when=asyncio.FIRST_COMPLETED)
            if changed.done():
                changed.result()
        finally:
            told.cancel()
            changed.cancel()
            await asyncio.gather(told, changed, return_exceptions=True)
            self._told.clear()


def _redis_bus(url: Secret, wake: Callable[[], None], log: structlog.stdlib.BoundLogger) -> "RedisBus":
    # Imported here because its driver is there only with the extra `redis`; the settings have checked that it is.
    from jotgate.server.redis_bus import RedisBus  # noqa: PLC0415

    bus = RedisBus(url, wake, log)
    bus.start()
    return bus
