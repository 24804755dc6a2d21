"""What this process knows without asking the database: its key set and what has been revoked of late.

It is the ``KeySource`` of in-process verifiers. A logout in this process counts before it is answered; one in another
process (a second worker, the command line) counts as soon as the log has been read again.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Revocation, RevocationList
from jotgate.server.log import get_log, where
from jotgate.server.settings import MAX_ACCESS_TOKEN_TTL_S
from jotgate.server.store import Store, StoreError
from jotgate.verifier import Snapshot

POLL_S: Final = 0.25
# The longest life that a setting allows, the most leeway that a policy allows, and a minute for requests under way:
# whatever this server, or one with another setting, signs for a session that ends now has expired by then.
REVOCATION_LIFE_S: Final = MAX_ACCESS_TOKEN_TTL_S + 60 + 60
# An entry of the log whose end has passed by no more than this is read at start all the same: the clock may be wrong.
CLOCK_JUMP_S: Final = 3_700
_TIDY_EVERY_S: Final = 600.0


class LiveState:
    """Keys and recent revocations. A logout adds one entry in place, however many there are."""

    def __init__(
        self, keys: KeySet, *, clock: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self._list = RevocationList()
        self._cursor = 0
        self._show()

    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return self._snapshot

    def revoke(self, revocations: Iterable[Revocation]) -> None:
        """Take in what has just been revoked: from now on it counts in this process."""
        with self._writing:
            self._list.add(revocations, keep_until=int(self._monotonic()) + REVOCATION_LIFE_S)
            self._show()

    def tidy(self) -> None:
        """Drop entries of which no token can be alive any more."""
        with self._writing:
            self._list.drop(int(self._monotonic()))
            self._show()

    def _show(self) -> None:
        self._snapshot = Snapshot(keys=self._keys, revocations=self._list.revocations)

    async def catch_up(self, store: Store) -> None:
        """Take in what the log holds beyond the last reading.

        Raises:
            StoreError: the database does not answer; what is known stays.
        """
        entries = await store.revocations_after(self._cursor, alive_at=self._clock() - CLOCK_JUMP_S)
        if entries:
            self.revoke(entry.revocation for entry in entries)
            self._cursor = entries[-1].seq

    async def follow(self, store: Store) -> None:
        """Keep catching up until cancelled. A database that does not answer is told once, and asked again."""
        silent = False
        tidied_at = self._monotonic()
        while True:
            try:
                await self.catch_up(store)
                await store.wait_changed(POLL_S)
                silent = False
            except StoreError as error:
                if not silent:
                    get_log().error("revocations_unread", error=type(error).__name__, at=where(error))
                silent = True
                await asyncio.sleep(POLL_S)
            if self._monotonic() - tidied_at > _TIDY_EVERY_S:
                self.tidy()
                tidied_at = self._monotonic()


class Follower:
    """A thread that keeps a ``LiveState`` up to date, whatever event loops the app lives and dies in."""

    def __init__(self, live: LiveState, store: Store) -> None:
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(live.follow(store))
        self._thread = threading.Thread(target=self._run, name="jotgate-revocations", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following, and wait for the thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()
