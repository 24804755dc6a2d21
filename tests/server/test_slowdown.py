"""Whoever is refused again and again waits for refusals; a few do not, and the number of those who wait is bounded."""

import asyncio

import pytest

from jotgate.server.limits import Slowdown


class Sleeping:
    """Who sleeps, until they are woken."""

    def __init__(self) -> None:
        self.asleep = 0
        self.seconds: set[float] = set()
        self.wake = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds.add(seconds)
        self.asleep += 1
        try:
            await self.wake.wait()
        finally:
            self.asleep -= 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_few_refusals_go_out_at_once_and_a_flood_of_them_a_second_later() -> None:
    now, sleeping = 100.0, Sleeping()
    slowdown = Slowdown(monotonic=lambda: now, sleep=sleeping)
    for _ in range(Slowdown.FREE_PER_S):
        await slowdown.wait()
    assert sleeping.asleep == 0
    waiting = [asyncio.ensure_future(slowdown.wait()) for _ in range(64)]
    await settle()
    assert sleeping.asleep == 64
    # Each of them a little longer than another: they do not come back at one moment.
    assert len(sleeping.seconds) == 64
    assert min(sleeping.seconds) == 0.5 * Slowdown.WAIT_S
    assert max(sleeping.seconds) < 1.5 * Slowdown.WAIT_S
    now = 101.0  # the next second begins afresh
    await slowdown.wait()
    sleeping.wake.set()
    await asyncio.gather(*waiting)


async def test_no_more_wait_than_there_is_room_for() -> None:
    sleeping = Sleeping()
    slowdown = Slowdown(monotonic=lambda: 0.0, sleep=sleeping)
    tasks = [asyncio.ensure_future(slowdown.wait()) for _ in range(Slowdown.FREE_PER_S + Slowdown.MOST_WAIT + 10)]
    await settle()
    assert sleeping.asleep == Slowdown.MOST_WAIT
    assert sum(task.done() for task in tasks) == Slowdown.FREE_PER_S + 10
    # Somebody who goes away makes room.
    waiting = next(task for task in tasks if not task.done())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    tasks.append(asyncio.ensure_future(slowdown.wait()))
    await settle()
    assert sleeping.asleep == Slowdown.MOST_WAIT
    sleeping.wake.set()
    await asyncio.gather(*(task for task in tasks if task is not waiting))
