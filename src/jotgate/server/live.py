"""What this process knows without asking the database: its key set and the sessions revoked of late.

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
from jotgate.core.revocations import Revocations
from jotgate.server.log import get_log, where
from jotgate.server.records import CLOCK_MARGIN_S
from jotgate.server.store import Store, StoreError
from jotgate.verifier import Snapshot

POLL_S: Final = 0.25
_TIDY_EVERY_S: Final = 600.0


class LiveState:
    """Keys and recent revocations. A logout adds one entry in place, however many there are.

    Adding to a dictionary and looking into it are each one step for every thread; what has run out is dropped by
    putting a new dictionary in the place of the old one.
    """

    def __init__(self, keys: KeySet, *, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._clock = clock
        self._writing = threading.Lock()
        self._cursor = 0
        self._show({})

    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return self._snapshot

    def revoke_sessions(self, entries: Iterable[tuple[str, int]]) -> None:
        """Take in (sid, until) pairs."""
        with self._writing:
            self._sessions.update(entries)

    def tidy(self) -> None:
        """Drop entries a day after the last token they concern has expired."""
        with self._writing:
            dead_since = self._clock() - CLOCK_MARGIN_S
            self._show({sid: until for sid, until in self._sessions.items() if until > dead_since})

    def _show(self, sessions: dict[str, int]) -> None:
        self._sessions = sessions
        self._snapshot = Snapshot(keys=self._keys, revocations=Revocations.view(sessions))

    async def catch_up(self, store: Store) -> None:
        """Take in what the log holds beyond the last reading.

        Raises:
            StoreError: the database does not answer; what is known stays.
        """
        entries = await store.revocations_after(self._cursor)
        if entries:
            self.revoke_sessions((entry.id, entry.until) for entry in entries if entry.kind == "session")
            self._cursor = max(self._cursor, entries[-1].seq)

    async def follow(self, store: Store) -> None:
        """Keep catching up until cancelled. A database that does not answer is told once, and asked again."""
        silent = False
        tidied_at = time.monotonic()
        while True:
            try:
                await self.catch_up(store)
                silent = False
            except StoreError as error:
                if not silent:
                    get_log().error("revocations_unread", error=type(error).__name__, at=where(error))
                silent = True
            if time.monotonic() - tidied_at > _TIDY_EVERY_S:
                self.tidy()
                tidied_at = time.monotonic()
            await asyncio.sleep(POLL_S)


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
