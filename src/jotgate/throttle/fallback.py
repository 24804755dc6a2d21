"""Goes on in memory while the shared store is away, and back: a dead Redis neither stops requests nor delays each one.

A call that gets no answer in time is decided in memory, and so is everything after it, at once. Meanwhile a task of
its own asks the shared store whether it is back; no request waits for that. As long as the shared store decides, memory
is told what was taken and given back here, so that losing Redis gives nobody a fresh allowance of this process. What is
counted in memory meanwhile is not told to Redis afterwards.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from jotgate.throttle.decisions import Decision
from jotgate.throttle.limits import Charge
from jotgate.throttle.memory import MemoryStore
from jotgate.throttle.store import Store, StoreUnavailable

ASK_AGAIN_S: Final = 1.0

Counting = Literal["shared", "local"]


class SharedStore(Store, Protocol):
    """A store that may be away, and can be asked whether it is."""

    async def ping(self) -> None:
        """Return if it answers.

        Raises:
            StoreUnavailable: it does not, or not in time.
        """
        ...


class FallbackStore:
    """A shared store with this process's memory behind it. Never unavailable.

    Args:
        shared: decides as long as it answers, within a time of its own that it is given (`RedisStore(timeout_s=…)`).
        memory: decides otherwise; by default one of the usual size.
        on_change: is called with `"local"` and what went wrong when the shared store is lost, and with `"shared"` and
            None when it is back: once each. It must not block. Until the first loss nothing is told.
        ask_again_s: how long after a failure the shared store is asked again, and again.
    """

    def __init__(
        self,
        shared: SharedStore,
        memory: MemoryStore | None = None,
        *,
        on_change: Callable[[Counting, BaseException | None], None] = lambda _counting, _fault: None,
        ask_again_s: float = ASK_AGAIN_S,
    ) -> None:
        self._shared = shared
        self._memory = MemoryStore() if memory is None else memory
        self._on_change = on_change
        self._ask_again_s = ask_again_s
        self._counting: Counting = "shared"
        self._losses = 0
        self._asking: asyncio.Task[None] | None = None

    @property
    def counting(self) -> Counting:
        """Which of the two decides right now."""
        return self._counting

    async def take(self, charges: Sequence[Charge]) -> Decision:
        """See `Store.take`; waits no longer than the shared store's own time limit."""
        if self._is_shared():
            losses = self._losses
            try:
                decision = await self._shared.take(charges)
            except StoreUnavailable as outage:
                self._lose(outage, losses)
            else:
                if decision.allowed:
                    self._memory.record(charges)
                return decision
        return self._memory.take_now(charges)

    async def refund(self, charges: Sequence[Charge]) -> None:
        """See `Store.refund`; waits no longer than the shared store's own time limit."""
        self._memory.refund_now(charges)
        if self._is_shared():
            losses = self._losses
            try:
                await self._shared.refund(charges)
            except StoreUnavailable as outage:
                self._lose(outage, losses)

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        asking, self._asking = self._asking, None
        if asking is not None and asking.get_loop() is asyncio.get_running_loop():
            asking.cancel()
            await asyncio.wait([asking])
        await self._shared.aclose()

    def _is_shared(self) -> bool:
        if self._counting == "local" and not _goes_on(self._asking):
            # The event loop in which it was asked has ended, or the store was closed: whoever comes takes that over.
            self._asking = asyncio.get_running_loop().create_task(self._ask_until_back())
        return self._counting == "shared"

    def _lose(self, outage: StoreUnavailable, losses: int) -> None:
        # Of many calls that fail at once the first one tells; and one that fails late says nothing of a store that has
        # been back meanwhile.
        if self._losses == losses:
            self._losses += 1
            self._counting = "local"
            self._asking = asyncio.get_running_loop().create_task(self._ask_until_back())
            self._on_change("local", outage.__cause__ or outage)

    async def _ask_until_back(self) -> None:
        # A cancellation that comes together with a time-out of the driver's own can get lost, so that this looks, too.
        while self._asking is asyncio.current_task():
            await asyncio.sleep(self._ask_again_s)
            try:
                await self._shared.ping()
            except StoreUnavailable:
                continue
            self._counting = "shared"
            self._on_change("shared", None)
            return


def _goes_on(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done() and not task.get_loop().is_closed()
