"""What this process knows without asking the database: its key set and the sessions revoked of late.

It is the ``KeySource`` of in-process verifiers. A logout in this process counts before it is answered; one in another
process (a second worker, the command line) counts as soon as the log has been read again.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Final

from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Revocations
from jotgate.server.log import get_log, where
from jotgate.server.records import CLOCK_MARGIN_S
from jotgate.server.store import Store, StoreError
from jotgate.verifier import Snapshot

POLL_S: Final = 0.25


class LiveState:
    """Keys and recent revocations, as one immutable snapshot that is replaced whole."""

    def __init__(self, keys: KeySet, *, clock: Callable[[], int]) -> None:
        self._snapshot = Snapshot(keys=keys, revocations=Revocations())
        self._clock = clock
        self._writing = threading.Lock()
        self._cursor = 0

    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return self._snapshot

    def revoke_sessions(self, entries: Iterable[tuple[str, int]]) -> None:
        """Take in (sid, until) pairs; entries go a day after the last token they concern has expired."""
        with self._writing:
            revocations = self._snapshot.revocations.with_sessions(dict(entries), self._clock() - CLOCK_MARGIN_S)
            self._snapshot = Snapshot(keys=self._snapshot.keys, revocations=revocations)

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
        while True:
            try:
                await self.catch_up(store)
                silent = False
            except StoreError as error:
                if not silent:
                    get_log().error("revocations_unread", error=type(error).__name__, at=where(error))
                silent = True
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
