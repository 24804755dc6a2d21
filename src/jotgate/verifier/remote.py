"""Keeps an issuer's keys fresh: one daemon thread in each process, one immutable snapshot that callers read.

It knows when to fetch and whom to wake; it must not know what a token is. Nothing is started before the first use, and
a forked child starts anew from the keys that its parent had. Revocations come from a `RemoteFeed` beside it.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable

from msgspec import Struct

from jotgate.core.errors import KeySourceError
from jotgate.core.jwk import KeySet
from jotgate.verifier.attempt import Attempt, in_event_loop, over
from jotgate.verifier.discovery import Fetched
from jotgate.verifier.feed import RemoteFeed
from jotgate.verifier.schedule import FIRST_RETRY_S, Schedule
from jotgate.verifier.snapshot import Snapshot
from jotgate.verifier.transport import FetchError

_log = logging.getLogger("jotgate.verifier")


class Good(Struct, frozen=True):
    """The keys of the last fetch that succeeded, without those that have been revoked; and the revocations."""

    snapshot: Snapshot
    keys: KeySet
    """All that were fetched."""
    fetched_at: int
    keys_stale_at: float
    """Monotonic: from then on the keys decide nothing any more."""
    stale_at: float
    """The same for keys and revocations together."""


class RemoteKeys:
    """A KeySource over the network.

    Args:
        issuer: named in messages only.
        fetch: one try to get the keys; FetchError when they could not be had.
        feed: what is revoked.
        max_age_offline_s: how long keys are used after the last successful fetch.
        clock: wall clock in seconds, for people (`status`). Every decision uses `monotonic`.
    """

    def __init__(
        self,
        *,
        issuer: str,
        fetch: Callable[[], Fetched],
        feed: RemoteFeed,
        schedule: Schedule,
        max_age_offline_s: float,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self.feed = feed
        feed.owner = self
        self._schedule = schedule
        self._max_age_offline_s = max_age_offline_s
        self._clock = clock
        self._monotonic = monotonic
        self.good: Good | None = None
        self.last_error: str | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._next = Attempt()
        self._read_at: dict[str, float] = {}
        """For each `kid` that is known, the monotonic time at which the issuer's set last had it in a usable form."""
        self._told = False
        """Whether the issuer has revoked a key since the last fetch began."""
        _everyone.add(self)

    def snapshot(self) -> Snapshot:
        """Return what the last successful fetch brought. The usual way takes no lock.

        Raises:
            KeySourceError: there was none yet, or it is too long ago.
        """
        good = self.good
        if good is None or self._thread is None or self._monotonic() >= good.stale_at:
            return self._settle()
        return good.snapshot

    def _usable(self) -> Snapshot | None:
        good = self.good
        return good.snapshot if good is not None and self._monotonic() < good.stale_at else None

    def _settle(self) -> Snapshot:
        fault = self._start()
        usable = self._usable()
        if usable is not None:
            return usable
        if self.good is not None and self._monotonic() < self.good.keys_stale_at:
            reason = fault or self.feed.last_error
            state = "The revocations of {} "
            state += "are not known yet" if self.feed.pending else "have not been heard of for too long"
        else:
            reason = fault or self.last_error
            state = "The keys of {} " + ("are not known yet" if self.good is None else "were last fetched too long ago")
        raise KeySourceError(state.format(self._issuer) + (f": {reason}." if reason else "."))

    def latest(self) -> Snapshot:
        """Return what there is to judge by for those who have waited long enough.

        Where silence is accepted, keys alone are enough then.

        Raises:
            KeySourceError: there are no keys, or not heard of revocations for too long.
        """
        good = self.good
        if good is not None and self.feed.pending and self._monotonic() < min(good.keys_stale_at, self.feed.silent_at):
            return good.snapshot
        return self.snapshot()

    def coming(self) -> Attempt:
        """Return the fetch that ends next, be it under way or only planned."""
        return self.feed.first if self.feed.pending else self._next

    def attempt_after(self, seen: Snapshot | None) -> Attempt | None:
        """Return the fetch after whose end to judge again; None when a refusal by `seen` stands.

        `seen` is None where there were no keys to judge by: then a fetch under way is worth waiting for, and a retry
        that is only planned is not. Otherwise a token named a key that `seen` does not have: however many such tokens
        come, one fetch in each cooldown is made for them, which the others share while it is under way.
        """
        if seen is not None and self._stands(seen):
            return None
        with self._changed:
            usable = self._usable()
            if (usable and usable.keys) is not (seen and seen.keys):
                return over()  # a fetch has ended meanwhile
            if seen is None and self.feed.pending:
                return self.feed.first
            if self._next.in_flight:
                return self._next
            if seen is None:
                return over()  # the next try tells the reason that is known by now
            if self._thread is None or not self._schedule.ask(self._monotonic()):
                return None
            # Taken for under way from now on, or the next caller would find neither a fetch nor a free cooldown.
            self._next.begin(self._monotonic())
            self._changed.notify_all()
            return self._next

    def _stands(self, seen: Snapshot) -> bool:
        """Tell, as good as always in a flood, that an unknown key causes nothing now. It takes no lock.

        Threads that queue for one hand it on by handing on the interpreter, and an event loop among them would keep
        everybody waiting whom it serves. Looked at in this order, all of it held at once, at the moment of the second
        look: a fetch puts its keys in place before it is over, and the cooldown begins before a fetch for it.
        """
        if not self._schedule.is_cooling(self._monotonic()) or self._next.in_flight:
            return False
        usable = self._usable()
        return usable is not None and usable.keys is seen.keys

    def patience_s(self, attempt: Attempt, seen: Snapshot | None, key_wait_s: float) -> float:
        """Return for how long a token may wait for `attempt`: without any keys to judge by, `key_wait_s`.

        For an unknown key, that is counted from where the fetch began, so that however many tokens name unknown keys,
        and however slowly an issuer answers, they hold up whoever judges them no longer than that for each fetch.
        """
        if seen is None or attempt.began_at is None:
            return key_wait_s
        return attempt.began_at + key_wait_s - self._monotonic()

    def close(self) -> None:
        """Let the thread end, and wake whoever waits. The next use starts it again."""
        with self._changed:
            self._thread = None
            attempt, self._next = self._next, Attempt()
            self._changed.notify_all()
            self.feed.stop()  # under the lock, or whoever starts both meanwhile would start but one
        attempt.end()

    inline = False
    """Whether whoever verifies fetches, too."""

    async def off_loop(self, work: Callable[[], None]) -> None:
        """Do what blocks on a thread of the running event loop's."""
        await asyncio.to_thread(work)

    async def refresh_inline(self) -> None:
        """Fetch what is due where no thread does it; here one does."""

    def renew(self) -> None:
        """Put the feed's state in place, at once for every verification that begins after it."""
        with self._changed:
            good = self.good
            if good is None:
                return
            waited_for = None
            if self._usable() is None and not self._next.in_flight:
                waited_for, self._next = self._next, Attempt()
            self.good = self._make_good(good.keys, good.fetched_at, good.keys_stale_at)
        if waited_for is not None:  # until the next fetch of the keys, which is minutes away
            waited_for.end()

    def refresh_soon(self) -> None:
        """Fetch the keys at once, and once more where a fetch is under way, which may have come too early.

        The issuer has signed that a key is revoked, so no cooldown is due, and none is used up: the successor's tokens
        may need it.
        """
        with self._changed:
            self._told = True
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Forget, in a forked child, the thread that stayed with the parent and locks that it may have held."""
        self._thread = None
        self._changed = threading.Condition()
        self._next = Attempt()
        self.feed.after_fork()

    def _start(self) -> str | None:
        with self._changed:
            if self._thread is not None:
                return None
            thread = threading.Thread(target=self._run, name="jotgate-verifier", daemon=True)
            self._thread = thread
            if self._monotonic() >= self._schedule.due_at:
                self._next.begin(self._monotonic())
            try:
                thread.start()
            except RuntimeError as fault:  # no more threads to be had, or the interpreter is ending
                self._thread = None
                self._next.in_flight = False
                return f"no thread could be started ({fault})"
            self.feed.start()  # where it was followed before: by the parent of a fork, or until `close`
            return None

    def _run(self) -> None:
        me = threading.current_thread()
        while (attempt := self._await_due(me)) is not None:
            began = self._monotonic()
            fetched = self._try()
            with self._changed:
                if self._thread is me:  # else closed meanwhile: a successor's newer result must stand
                    self._take(fetched)
                    self._next = Attempt()
                    self.feed.start()
            if self.feed.pending:
                self.feed.first.take_along(attempt)  # for whoever waits, what is revoked belongs to it
            else:
                attempt.end()
            self.feed.refresh_keys(began)

    def _try(self) -> Fetched | str:
        """Fetch once; the reason where that failed."""
        try:
            fetched = self._fetch()
        except FetchError as fault:
            return str(fault)
        except Exception as fault:  # noqa: BLE001 # whatever it was, nobody else would fetch the keys
            _log.exception("%s: unexpected fault while fetching keys", self._issuer)
            return f"unexpected {type(fault).__name__}"
        return fetched

    def _await_due(self, me: threading.Thread) -> Attempt | None:
        with self._changed:
            while self._thread is me:
                left_s = self._schedule.due_at - self._monotonic()
                if self._next.in_flight or self._told or left_s <= 0:
                    self._next.begin(self._monotonic())
                    self._told = False
                    return self._next
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            return None

    def _take(self, fetched: Fetched | str) -> None:
        now = self._monotonic()
        if isinstance(fetched, str):
            self._schedule.failed(now)
            if fetched != self.last_error:  # said once, not with each retry
                _log.warning("%s: the keys could not be fetched, those that are known stay: %s", self._issuer, fetched)
            self.last_error = fetched
            return
        self._schedule.succeeded(now, fetched.max_age_s)
        self.feed.find(fetched.feed)
        keys, known = self._with_spoiled(fetched.keys, now), self.good.keys if self.good is not None else None
        if known is not None and (known.to_jwks(), known.skipped) == (keys.to_jwks(), keys.skipped):
            keys = known  # what was proved under the same keys stays proved, whoever makes us fetch them again
        elif keys.skipped:
            _log.warning("%s: %d keys of its set cannot be used", self._issuer, len(keys.skipped))
        self.good = self._make_good(keys, self._clock(), now + self._max_age_offline_s)
        if self.last_error is not None:
            _log.info("%s: the keys are fetched again", self._issuer)
        self.last_error = None

    def _with_spoiled(self, fetched: KeySet, now: float) -> KeySet:
        """Add the known keys that the set still names but that cannot be read in it: a fault, and no way to drop a key.

        They stay for as long as keys of an issuer that is away; this is looked at with each fetch.
        """
        unreadable = {name for name, _ in fetched.skipped}
        oldest = now - self._max_age_offline_s
        spoiled = [
            key
            for key in (self.good.keys if self.good is not None else ())
            if key.kid in unreadable and self._read_at[key.kid] > oldest
        ]
        kept_at = {key.kid: self._read_at[key.kid] for key in spoiled}
        self._read_at = {key.kid: now for key in fetched} | kept_at
        return KeySet([*fetched, *spoiled], skipped=fetched.skipped) if spoiled else fetched

    def _make_good(self, keys: KeySet, fetched_at: int, keys_stale_at: float) -> Good:
        """Put keys and revocations together; under the lock."""
        left = keys.without(self.feed.revoked_keys)
        before = self.good
        if before is not None and left is not keys and [*left] == [*before.snapshot.keys]:
            left = before.snapshot.keys  # what was proved under them stays proved
        return Good(
            snapshot=Snapshot(keys=left, revocations=self.feed.revocations),
            keys=keys,
            fetched_at=fetched_at,
            keys_stale_at=keys_stale_at,
            stale_at=min(keys_stale_at, float("-inf") if self.feed.pending else self.feed.silent_at),
        )


class InlineKeys(RemoteKeys):
    """The same without any thread, for functions-as-a-service: whoever verifies fetches first what is due.

    Inside a running event loop `snapshot` fetches nothing: `refresh_inline` does it on a thread of the loop's.
    """

    inline = True

    def __init__(
        self,
        *,
        issuer: str,
        fetch: Callable[[], Fetched],
        feed: RemoteFeed,
        schedule: Schedule,
        max_age_offline_s: float,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(
            issuer=issuer,
            fetch=fetch,
            feed=feed,
            schedule=schedule,
            max_age_offline_s=max_age_offline_s,
            clock=clock,
            monotonic=monotonic,
        )
        self._fetching = threading.Lock()

    def snapshot(self) -> Snapshot:
        """Return what holds now, fetched anew where that is due.

        Raises:
            KeySourceError: there are no keys, or they are too old.
        """
        if not in_event_loop():
            self.refresh()
        return self._settle()

    def refresh(self) -> None:
        """Fetch what is due. Blocks, for a few time-outs at most; while another thread does it, only without keys."""
        if not self.is_due or not self._fetching.acquire(blocking=self._usable() is None):
            return
        try:
            self._fetch_if_due()
            self.feed.poll_if_due()
            self._fetch_if_due()  # the feed may have told that a key is revoked
        finally:
            self._fetching.release()

    def _fetch_if_due(self) -> None:
        began = self._monotonic()
        if not self._told and began < self._schedule.due_at:
            return
        self._told = False
        fetched = self._try()
        with self._changed:
            self._take(fetched)
        self.feed.refresh_keys(began)

    async def refresh_inline(self) -> None:
        """Do the same without blocking the event loop; under another one than asyncio's do nothing."""
        if self.is_due and in_event_loop():
            await asyncio.to_thread(self.refresh)

    @property
    def is_due(self) -> bool:
        """Whether there is anything to fetch."""
        return self._told or self._monotonic() >= self._schedule.due_at or self.feed.is_due

    def coming(self) -> Attempt:
        """Fetch, once that is due, and return what is over then."""
        time.sleep(min(max(self._schedule.due_at - self._monotonic(), 0), FIRST_RETRY_S))
        self.refresh()
        return over()

    def attempt_after(self, seen: Snapshot | None) -> Attempt | None:
        """Let the keys be fetched again for an unknown one, once in each cooldown; None when the refusal stands."""
        if seen is None or self._schedule.is_cooling(self._monotonic()):  # without the lock, as above
            return None
        with self._changed:
            return over() if self._schedule.ask(self._monotonic()) else None

    def after_fork(self) -> None:
        """Forget, in a forked child, a lock that another thread of the parent may have held."""
        super().after_fork()
        self._fetching = threading.Lock()

    def _start(self) -> str | None:
        return None


# A fork copies one thread only. The set is weak: it keeps nobody alive, and nobody has to sign off.
_everyone: weakref.WeakSet[RemoteKeys] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for remote in _everyone:
        remote.after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
