"""Waiting for something that another thread does, in threads and in event loops; it must not know what that is."""

import asyncio
import threading


class Attempt:
    """One fetch, to come or in flight: any number of threads and event-loop tasks may wait for its end."""

    def __init__(self) -> None:
        self.in_flight = False
        self.began_at: float | None = None
        """The monotonic time at which it began; None while it is only planned."""
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._tasks: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._others: list[Attempt] = []

    def begin(self, now: float) -> None:
        """Take it for under way from the monotonic time `now` on, unless it is already."""
        if not self.in_flight:
            self.in_flight = True
            self.began_at = now

    @property
    def waiting(self) -> int:
        """How many event-loop tasks wait now."""
        return len(self._tasks)

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
            self._tasks[future] = loop
        try:
            await asyncio.wait([future], timeout=max(timeout_s, 0))
        finally:  # whoever has given up leaves nothing behind, however long the fetch goes on
            with self._lock:
                self._tasks.pop(future, None)

    def take_along(self, other: "Attempt") -> None:
        """Let `other` end when this one does, or now if it has."""
        with self._lock:
            if not self._ended.is_set():
                self._others.append(other)
                return
        other.end()

    def end(self) -> None:
        """Wake all who wait. May be called twice."""
        with self._lock:
            self._ended.set()
            tasks, self._tasks = self._tasks, {}
            others, self._others = self._others, []
        for other in others:
            other.end()
        for future, loop in tasks.items():
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # that loop was closed meanwhile, so nobody waits there any more
                continue


def over() -> Attempt:
    """Return a fetch that has ended."""
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
