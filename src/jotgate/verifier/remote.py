"""Keeps an issuer's keys fresh: one daemon thread in each process, one immutable snapshot that callers read.

It knows when to fetch and whom to wake; it must not know what a token is. Nothing is started before the first use, and
a forked child starts anew from the keys that its parent had.
"""

import asyncio
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable

from msgspec import Struct

from jotgate.core.errors import KeySourceError
from jotgate.core.revocations import Revocations
from jotgate.verifier.discovery import Fetched
from jotgate.verifier.schedule import Schedule
from jotgate.verifier.snapshot import Snapshot
from jotgate.verifier.transport import FetchError

_log = logging.getLogger("jotgate.verifier")


class Good(Struct, frozen=True):
    """The keys of the last fetch that succeeded."""

    snapshot: Snapshot
    fetched_at: int
    stale_at: float
    """Monotonic: from then on they decide nothing any more."""


class Attempt:
    """One fetch, to come or in flight: any number of threads and event-loop tasks may wait for its end."""

    def __init__(self) -> None:
        self.in_flight = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def wait(self, timeout_s: float) -> None:
        """Block this thread until the fetch ends."""
        self._ended.wait(max(timeout_s, 0))

    def wait_outside_loop(self, timeout_s: float) -> None:
        """Block this thread until the fetch ends, save where that would block a running event loop."""
        if not in_event_loop():
            self.wait(timeout_s)

    async def wait_async(self, timeout_s: float) -> None:
        """Let other tasks run until the fetch ends. Under another event loop than asyncio's do not wait at all."""
        if not in_event_loop():
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._ended.is_set():
                return
            self._tasks.append((loop, future))
        await asyncio.wait([future], timeout=max(timeout_s, 0))

    def end(self) -> None:
        """Wake all who wait. May be called twice."""
        with self._lock:
            self._ended.set()
            tasks, self._tasks = self._tasks, []
        for loop, future in tasks:
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # that loop was closed meanwhile, so nobody waits there any more
                continue


def _over() -> Attempt:
    attempt = Attempt()
    attempt.end()
    return attempt


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def in_event_loop() -> bool:
    """Tell whether blocking this thread would block an asyncio event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class RemoteKeys:
    """A KeySource over the network.

    Args:
        issuer: named in messages only.
        fetch: one try to get the keys; FetchError when they could not be had.
        max_age_offline_s: how long keys are used after the last successful fetch.
        clock: wall clock in seconds, for people (`status`). Every decision uses `monotonic`.
    """

    def __init__(
        self,
        *,
        issuer: str,
        fetch: Callable[[], Fetched],
        schedule: Schedule,
        max_age_offline_s: float,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._schedule = schedule
        self._max_age_offline_s = max_age_offline_s
        self._clock = clock
        self._monotonic = monotonic
        self.good: Good | None = None
        self.last_error: str | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._next = Attempt()
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
        state = "are not known yet" if self.good is None else "were last fetched too long ago"
        reason = fault or self.last_error
        raise KeySourceError(f"The keys of {self._issuer} {state}" + (f": {reason}." if reason else "."))

    def coming(self) -> Attempt:
        """Return the fetch that ends next, be it under way or only planned."""
        return self._next

    def attempt_after(self, seen: Snapshot | None) -> Attempt | None:
        """Return the fetch after whose end to judge again; None when a refusal by `seen` stands.

        `seen` is None where there were no keys to judge by: then a fetch under way is worth waiting for, and a retry
        that is only planned is not. Otherwise a token named a key that `seen` does not have: however many such tokens
        come, one fetch in each cooldown is made for them, which the others share while it is under way.
        """
        with self._changed:
            if self._usable() is not seen:
                return _over()  # a fetch has ended meanwhile
            if self._next.in_flight:
                return self._next
            if seen is None:
                return _over()  # the next try tells the reason that is known by now
            if self._thread is None or not self._schedule.ask(self._monotonic()):
                return None
            # Taken for under way from now on, or the next caller would find neither a fetch nor a free cooldown.
            self._next.in_flight = True
            self._changed.notify_all()
            return self._next

    def close(self) -> None:
        """Let the thread end, and wake whoever waits. The next use starts it again."""
        with self._changed:
            self._thread = None
            attempt, self._next = self._next, Attempt()
            self._changed.notify_all()
        attempt.end()

    def after_fork(self) -> None:
        """Forget, in a forked child, the thread that stayed with the parent and locks that it may have held."""
        self._thread = None
        self._changed = threading.Condition()
        self._next = Attempt()

    def _start(self) -> str | None:
        with self._changed:
            if self._thread is not None:
                return None
            thread = threading.Thread(target=self._run, name="jotgate-verifier", daemon=True)
            self._thread = thread
            if self._monotonic() >= self._schedule.due_at:
                self._next.in_flight = True
            try:
                thread.start()
            except RuntimeError as fault:  # no more threads to be had, or the interpreter is ending
                self._thread = None
                self._next.in_flight = False
                return f"no thread could be started ({fault})"
            return None

    def _run(self) -> None:
        me = threading.current_thread()
        while (attempt := self._await_due(me)) is not None:
            try:
                fetched: Fetched | str = self._fetch()
            except FetchError as fault:
                fetched = str(fault)
            except Exception as fault:  # noqa: BLE001 # whatever it was, without this thread the keys would grow old
                _log.exception("%s: unexpected fault while fetching keys", self._issuer)
                fetched = f"unexpected {type(fault).__name__}"
            with self._changed:
                if self._thread is me:  # else closed meanwhile: a successor's newer result must stand
                    self._take(fetched)
                    self._next = Attempt()
            attempt.end()

    def _await_due(self, me: threading.Thread) -> Attempt | None:
        with self._changed:
            while self._thread is me:
                left_s = self._schedule.due_at - self._monotonic()
                if self._next.in_flight or left_s <= 0:
                    self._next.in_flight = True
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
        keys, known = fetched.keys, self.good.snapshot.keys if self.good is not None else None
        if known is not None and (known.to_jwks(), known.skipped) == (keys.to_jwks(), keys.skipped):
            keys = known  # what was proved under the same keys stays proved, whoever makes us fetch them again
        elif keys.skipped:
            _log.warning("%s: %d keys of its set cannot be used", self._issuer, len(keys.skipped))
        self.good = Good(
            snapshot=Snapshot(keys=keys, revocations=Revocations()),
            fetched_at=self._clock(),
            stale_at=now + self._max_age_offline_s,
        )
        if self.last_error is not None:
            _log.info("%s: the keys are fetched again", self._issuer)
        self.last_error = None


# A fork copies one thread only. The set is weak: it keeps nobody alive, and nobody has to sign off.
_everyone: weakref.WeakSet[RemoteKeys] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for remote in _everyone:
        remote.after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
