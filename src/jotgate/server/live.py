"""What this process knows without asking the database: its keys, and what has been revoked of late.

It is the ``KeySource`` of in-process verifiers. A logout in this process counts before it is answered; one in another
process (a replica, a second worker, the command line) counts as soon as the log has been read again, which every
wake-up and at least every quarter of a second brings about. What is read goes on to the feed, in the order of the log.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import structlog

from jotgate.core.encoding import encode_segment
from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Kind, Revocation, RevocationList
from jotgate.server.audit_queue import WRITE_EVERY_S, AuditQueue
from jotgate.server.feed import HEARTBEAT_S, Feed
from jotgate.server.keys import REVOCATION_LIFE_S, KeyRing
from jotgate.server.log import get_log, where
from jotgate.server.mail.courier import Courier
from jotgate.server.records import LogEntry, LogHead
from jotgate.server.secret import Secret
from jotgate.server.store import Store, StoreBusy
from jotgate.server.wakeups import Wakeups
from jotgate.verifier import Snapshot

POLL_S: Final = 0.25
# An entry of the log whose end has passed by no more than this is read at start all the same: the clock may be wrong.
CLOCK_JUMP_S: Final = 3_700
_TIDY_EVERY_S: Final = 600.0
_PAGE: Final = 500  # entries read at once; they become one event of the feed
_SWEEP_EVERY_S: Final = 2.0
_SWEEP_ROWS: Final = 200
_TURN_KEYS_S: Final = 1.0  # how often the schedule of the keys is looked at, in memory
_FLUSH_WITHIN_S: Final = 5.0  # the end of the process waits so long for the audit trail
_LAST_MAIL_S: Final = 8.0  # and for mails that are on their way; `jotgate serve` ends a worker after ten
_LONGEST_PAUSE_S: Final = 30.0  # between attempts to read keys, which may have a command run for the master key

Listener = Callable[[Sequence[Revocation]], None]


class LiveState:
    """Keys and recent revocations, whoever asks: adding takes the same time however many there are."""

    def __init__(
        self,
        keys: KeySet,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        log: structlog.stdlib.BoundLogger | None = None,
    ) -> None:
        self._keys = keys
        self._log = log or get_log()
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self._list = RevocationList()
        self._listeners: list[Listener] = []
        self._tell: Callable[[], None] = _nobody
        self._show()

    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return self._snapshot

    def entries(self) -> tuple[Revocation, ...]:
        """Return all that is revoked."""
        with self._writing:
            return tuple(self._list)

    def use_keys(self, keys: KeySet) -> None:
        """Believe these keys from now on, save those that are revoked."""
        with self._writing:
            self._keys = keys
            self._show()

    def revoke(self, revocations: Iterable[Revocation]) -> None:
        """Take in what has just been committed here: it counts from now on, and others are told to look."""
        self.learn(revocations)
        self._tell()

    def learn(self, revocations: Iterable[Revocation]) -> None:
        """Take in revocations, wherever they come from."""
        with self._writing:
            new = self._list.add(revocations, keep_until=int(self._monotonic()) + REVOCATION_LIFE_S)
            self._show()
        if new:
            for listener in tuple(self._listeners):
                try:
                    listener(new)
                except Exception as error:  # noqa: BLE001 - the app's own code: it must not keep others from hearing
                    self._log.error("on_revoked_failed", error=type(error).__name__, at=where(error))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with what is newly revoked, on the thread that learns it; returns what ends that."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    def tell_with(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called after each change of the log that was made here."""
        self._tell = tell

    def tidy(self) -> None:
        """Drop entries of which no token can be alive any more."""
        with self._writing:
            self._list.drop(int(self._monotonic()))
            self._show()

    def _show(self) -> None:
        revoked = self._list.revoked_keys
        keys = self._keys.without(revoked) if revoked else self._keys
        self._snapshot = Snapshot(keys=keys, revocations=self._list.revocations)

    def __len__(self) -> int:
        return len(self._list)


def _nobody() -> None:
    """Tell nobody: there is no follower yet."""


class Follower:
    """A thread that follows the log into a ``LiveState`` and a ``Feed``, whatever event loops the app lives in.

    It also deletes what is long dead, a few rows at a time.
    """

    def __init__(
        self,
        live: LiveState,
        feed: Feed,
        store: Store,
        head: LogHead,
        keys: KeyRing,
        *,
        redis_url: Secret | None = None,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
        monotonic: Callable[[], float] = time.monotonic,
        audit: AuditQueue | None = None,
        audit_keep_s: int | None = None,
        courier: Courier | None = None,
        log: structlog.stdlib.BoundLogger | None = None,
    ) -> None:
        """``head`` is what ``Store.attend`` returned: the log that this process vouches for from now on."""
        self._live = live
        self._feed = feed
        self._store = store
        self._head = LogHead(head.log_id, 0)  # the log's recent entries are read first
        self._last: LogEntry | None = None  # what was read last: it tells this log from a copy that has grown since
        self._keys = keys
        self._clock = clock
        self._random = random
        self._monotonic = monotonic
        self._log = log or get_log()
        self._audit = audit
        self._audit_keep_s = audit_keep_s
        self._courier = courier
        self._mail_waits = asyncio.Event()
        self._no_more_mails = asyncio.Event()
        self._doubtful: tuple[Revocation, ...] | None = None  # what another log may lack of what was known before
        self._silent = False
        self._keys_seen: tuple[str, int] | None = None  # the log and the version of the keys, of the last reading
        self._keys_changed = asyncio.Event()
        self._beat_at = float("-inf")
        self._swept_to = b""
        self._caught_up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self.wakeups = Wakeups(self._loop, store, redis_url, self._log)
        live.tell_with(self.wakeups.tell)
        feed.begin(head.log_id, 0)
        self._task = self._loop.create_task(self._follow())
        self._chores: list[asyncio.Future[None]] = [
            self._loop.create_task(chore)
            for chore in (self._sweep(), self._read_keys(), self._turn_keys(), self._write_audit(), self._send_mails())
        ]
        self._trying_again: asyncio.Future[None] = self._loop.create_future()  # to read keys
        self._trying_again.cancel()
        self._thread = threading.Thread(target=self._run, name="jotgate-revocations", daemon=True)
        self._thread.start()

    def wait_caught_up(self, timeout_s: float) -> None:
        """Block until the log has been read once: before that, nobody here knows what is revoked.

        Raises:
            StoreError: the database did not answer in time.
        """
        if not self._caught_up.wait(timeout_s):
            raise StoreBusy("The revocations could not be read in time.")

    def stop(self) -> None:
        """Stop following, end the feed's streams, and wait for the thread."""
        self._feed.close()
        self.wakeups.close()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._no_more_mails.set()  # what is on its way is let arrive: cut off, it might be sent twice
        self._loop.run_until_complete(asyncio.wait([self._chores[-1]], timeout=_LAST_MAIL_S))
        for chore in self._chores:
            self._end(chore)
        self._end(self._trying_again)  # last: a chore begins it
        self._loop.run_until_complete(self._flush_audit())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        # A store's connections that belong to this loop are closed with its asynchronous generators.
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _end(self, chore: asyncio.Future[None]) -> None:
        chore.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(chore)

    async def _follow(self) -> None:
        """Keep catching up until cancelled. What goes wrong is told once, and tried again."""
        tidied_at = self._monotonic()
        while True:
            try:
                await self.catch_up()
                self._feed.confirm()
                self._caught_up.set()
                self._silent = False
                # Only who has just read the log may say that nothing is missing: without a database there is silence.
                if self._monotonic() - self._beat_at >= HEARTBEAT_S:
                    self._feed.beat()
                    self._beat_at = self._monotonic()
                await self.wakeups.wait(POLL_S)
            except Exception as error:  # noqa: BLE001 - whatever it was: without this thread nothing would be heard
                if not self._silent:
                    self._log.error("revocations_unread", error=type(error).__name__, at=where(error))
                self._silent = True
                await asyncio.sleep(POLL_S)
            if self._monotonic() - tidied_at > _TIDY_EVERY_S:
                self._live.tidy()
                tidied_at = self._monotonic()

    async def catch_up(self) -> None:
        """Take in what the log holds beyond the last reading.

        Raises:
            StoreError: the database does not answer; what is known stays, and so does what is still to be done.
        """
        head = await self._store.head()
        put_back = await self._is_put_back(head)
        if put_back or head.log_id != self._head.log_id:
            head = await self._start_over(head, put_back=put_back)
        if head.seq > self._head.seq:
            await self._read_to(head)
        if self._doubtful is not None:
            await self._log_lost_again(self._doubtful)
            self._doubtful = None
        if (head.log_id, head.keys_version) != self._keys_seen:
            self._keys_seen = head.log_id, head.keys_version
            self._keys_changed.set()

    async def _read_keys(self) -> None:
        """Take over keys that another process has made, rotated or revoked; what goes wrong is tried again.

        Beside the reading of the log: that the keys cannot be read is no reason to go silent on revocations.
        """
        failed, pause_s = False, POLL_S
        while True:
            await self._keys_changed.wait()
            self._keys_changed.clear()
            complete = False
            try:
                complete = await asyncio.to_thread(self._keys.reload)
                failed = False
            except Exception as error:  # noqa: BLE001 - whatever it was: a key that is revoked must not stay in use
                if not failed and not self._silent:
                    self._log.error("keys_unread", error=type(error).__name__, at=where(error))
                failed = True
            if complete:
                pause_s = POLL_S
                self._trying_again.cancel()
            elif self._trying_again.done():
                self._trying_again = self._loop.create_task(self._try_keys_again(pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _try_keys_again(self, pause_s: float) -> None:
        """Have the keys read again, by and by: beside the reading, which a change of them does not wait with."""
        if self._keys.waits_for_command:
            await _beside(self._keys.run_command)
            self._keys_changed.set()
        await asyncio.sleep(pause_s)
        self._keys_changed.set()

    async def _turn_keys(self) -> None:
        failed = False
        while True:
            await asyncio.sleep(_TURN_KEYS_S)
            try:
                if self._keys.may_turn() and self._keys.is_due and await asyncio.to_thread(self._keys.turn):
                    self.wakeups.tell()
                failed = False
            except Exception as error:  # noqa: BLE001 - the keys of now go on; that they do not turn has to be seen, once
                if not failed and not self._silent:
                    self._log.error("keys_not_turned", error=type(error).__name__, at=where(error))
                failed = True

    async def _read_to(self, head: LogHead) -> None:
        while self._head.seq < head.seq:
            entries = await self._page(self._head.seq)
            entries = [entry for entry in entries if entry.seq <= head.seq]
            reached = entries[-1].seq if len(entries) == _PAGE else head.seq
            revocations = _grouped(entries)
            self._live.learn(revocations)
            self._feed.append(reached, revocations)
            self._head = LogHead(head.log_id, reached)
            self._last = entries[-1] if entries else self._last

    async def _page(self, after: int) -> list[LogEntry]:
        return await self._store.revocations_after(after, alive_at=self._clock() - CLOCK_JUMP_S, limit=_PAGE)

    async def _is_put_back(self, head: LogHead) -> bool:
        """Whether the database was restored from an older copy under this process.

        The log is shorter then, or has other entries under the numbers that this process has read: a revocation that
        comes before the first look at the copy gets the number of one that is gone.
        """
        if head.seq < self._head.seq or self._last is None:
            return head.seq < self._head.seq
        there = await self._store.revocations_after(self._last.seq - 1, limit=1)
        # None of that number: it was long dead and has been deleted.
        return bool(there) and there[0].seq == self._last.seq and there[0] != self._last

    async def _start_over(self, head: LogHead, *, put_back: bool) -> LogHead:
        """Follow another log: somebody renewed its id, or the database was restored from an older copy.

        In the second case the log goes on from an earlier number, under which others have seen something else. So it
        gets a new id, and what it has lost is logged again, as far as this process knows.
        """
        if put_back:
            log_id = encode_segment(self._random(16))
            await self._store.renew_log(head.log_id, log_id)
            self._log.error("database_restored", log_id=log_id, seq=head.seq, known_seq=self._head.seq)
            head = await self._store.head()
        self._doubtful = self._live.entries()
        self._head = LogHead(head.log_id, 0)
        self._last = None
        self._feed.begin(head.log_id, 0)
        return head

    async def _log_lost_again(self, known: tuple[Revocation, ...]) -> None:
        """Log what is known and not in the log. Done again after a failure, it does what is left."""
        logged, after = RevocationList(), 0
        while entries := await self._page(after):
            logged.add(_grouped(entries), keep_until=1)
            after = entries[-1].seq
        lost = logged.add(known, keep_until=1)
        if lost:
            self._log.warning("revocations_logged_again", count=sum(max(len(each.ids), 1) for each in lost))
        for part in _parts(lost):
            await self._store.log_again([part], now=self._clock(), until_s=REVOCATION_LIFE_S)

    async def _sweep(self) -> None:
        failed = False
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            try:
                # A clock that has jumped ahead must not take the trail of what happened before along.
                keep_s = self._audit_keep_s if self._keys.may_turn() else None
                self._swept_to = await self._store.sweep(
                    self._swept_to, now=self._clock(), limit=_SWEEP_ROWS, audit_keep_s=keep_s
                )
                failed = False
            except Exception as error:  # noqa: BLE001 - what is dead can wait; that it waits has to be seen, once
                if not failed and not self._silent:
                    self._log.error("sweep_failed", error=type(error).__name__, at=where(error))
                failed = True

    def tell_courier(self) -> None:
        """A mail is in the outbox. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: another process sends it, or the next start
            self._loop.call_soon_threadsafe(self._mail_waits.set)

    async def _send_mails(self) -> None:
        if self._courier is not None:
            await self._courier.run(self._mail_waits, self._no_more_mails)

    async def _write_audit(self) -> None:
        failed = False
        while self._audit is not None:
            try:
                await self._audit.write(self._store)
                failed = False
            except Exception as error:  # noqa: BLE001 - what is to be written waits; that it waits has to be seen, once
                if not failed and not self._silent:
                    self._log.error("audit_unwritten", error=type(error).__name__, at=where(error))
                failed = True
            await asyncio.sleep(WRITE_EVERY_S)

    async def _flush_audit(self) -> None:
        if self._audit is None:
            return
        try:
            async with asyncio.timeout(_FLUSH_WITHIN_S):
                await self._audit.write(self._store, everything=True)
        except Exception as error:  # noqa: BLE001 - the process ends, whatever it was
            self._log.error("audit_unwritten", error=type(error).__name__, at=where(error))
        self._audit.give_up()


async def _beside(job: Callable[[], None]) -> None:
    """Do it on a thread that nobody waits for at the end: a command may take half a minute."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            job()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="jotgate-master-key-again", daemon=True).start()
    await done.wait()


def _grouped(entries: Sequence[LogEntry]) -> list[Revocation]:
    """Put the entries of one page together by kind, as far as their time does not matter."""
    ids: dict[Kind, list[str]] = {"session": [], "token": [], "key": []}
    rest: list[Revocation] = []
    for entry in entries:
        if entry.kind in ids:
            ids[entry.kind].append(entry.id)
        else:
            rest.append(entry.revocation)
    return [Revocation(kind, tuple(names)) for kind, names in ids.items() if names] + rest


def _parts(revocations: Iterable[Revocation]) -> Iterator[Revocation]:
    """Cut revocations into such as one transaction takes."""
    for each in revocations:
        for start in range(0, max(len(each.ids), 1), _PAGE):
            yield Revocation(each.kind, each.ids[start : start + _PAGE], each.at)
