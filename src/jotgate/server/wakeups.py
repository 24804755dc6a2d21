"""Who says "look into the log now": this process's own changes, and the store's news of other processes' changes.

A wake-up carries nothing. Whoever is woken reads the log, so that one too many costs a look, and one that gets lost
costs the time until the next.
"""

import asyncio
import contextlib

from jotgate.server.store import Store


class Wakeups:
    """What the follower's event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store) -> None:
        self._loop = loop
        self._store = store
        self._told = asyncio.Event()

    def tell(self) -> None:
        """Wake the follower. Any thread may call it; it neither waits nor fails."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody follows any more
            self._loop.call_soon_threadsafe(self._told.set)

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
