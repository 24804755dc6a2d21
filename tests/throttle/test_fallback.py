"""Redis goes in the middle of load, and comes back: nothing fails, nothing waits for long, each is told once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from jotgate.throttle import Charge, FallbackStore, MemoryStore, StoreUnavailable, parse_limit
from jotgate.throttle.redis_store import RedisStore
from tests.services import RedisServer

WITHIN_S = 30.0
FIVE = parse_limit("5 per day", name="five")
MANY = parse_limit("1000000 per day", name="many")
ADA = Charge(FIVE, "ada")


class Told:
    """What a store has told of its changes."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.faults: list[BaseException | None] = []

    def __call__(self, counting: str, fault: BaseException | None) -> None:
        self.events.append(counting)
        self.faults.append(fault)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def store(own_redis: RedisServer, told: Told) -> AsyncIterator[FallbackStore]:
    shared = RedisStore(own_redis.url, timeout_s=5)
    store = FallbackStore(shared, MemoryStore(), on_change=told, ask_again_s=0.05)
    yield store
    await store.aclose()


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def passes(store: FallbackStore, charge: Charge, times: int) -> int:
    return sum([(await store.take([charge])).allowed for _ in range(times)])


async def test_redis_stops_under_load_and_comes_back(own_redis: RedisServer, store: FallbackStore, told: Told) -> None:
    slowest_s, done, ending = 0.0, 0, asyncio.Event()

    async def load(name: str) -> None:
        nonlocal slowest_s, done
        while not ending.is_set():
            began = time.monotonic()
            decision = await store.take([Charge(MANY, name), Charge(FIVE, f"{name} {done}")])
            await store.refund([Charge(MANY, name)])
            assert decision.allowed
            slowest_s = max(slowest_s, time.monotonic() - began)
            done += 1
            await asyncio.sleep(0)

    async def more() -> None:
        goal = done + 200
        await wait_until(lambda: done >= goal)

    async def interrupt() -> None:
        await more()
        assert told.events == []
        for number in range(3):
            await asyncio.to_thread(own_redis.stop)
            await wait_until(lambda: store.counting == "local")
            await more()
            await asyncio.to_thread(own_redis.start)
            await wait_until(lambda: store.counting == "shared")
            await more()
            assert told.events == ["local", "shared"] * (number + 1)
        ending.set()

    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(load(str(number)))
        await interrupt()
    assert [fault is None for fault in told.faults] == [False, True] * 3
    assert slowest_s < 10


async def test_losing_redis_gives_nobody_a_fresh_allowance(own_redis: RedisServer, store: FallbackStore) -> None:
    assert await passes(store, ADA, 4) == 4
    await store.refund([ADA])
    own_redis.stop()
    assert await passes(store, ADA, 10) == 2, "three were used before, in this very process"
    assert store.counting == "local"


async def test_shared_again_once_redis_is_back(own_redis: RedisServer, store: FallbackStore, told: Told) -> None:
    other = RedisStore(own_redis.url, timeout_s=5)
    own_redis.stop()
    assert await passes(store, ADA, 10) == 5
    own_redis.start()
    await wait_until(lambda: store.counting == "shared")
    assert (await other.take([Charge(FIVE, ADA.key, 4)])).allowed
    assert await passes(store, ADA, 3) == 1, "what the other one has used counts"
    assert told.events == ["local", "shared"]
    await other.aclose()


async def test_a_dead_redis_delays_one_request_and_no_other(own_redis: RedisServer, told: Told) -> None:
    shared = RedisStore(own_redis.url, timeout_s=2)
    store = FallbackStore(shared, on_change=told, ask_again_s=0.05)
    await wait_until_it_answers(shared)
    assert (await store.take([ADA])).allowed
    async with Redis.from_url(own_redis.url) as redis:
        await redis.client_pause(60_000)
    began = time.monotonic()
    assert (await store.take([ADA])).allowed
    first_s = time.monotonic() - began
    assert 1.9 <= first_s < 10
    assert told.events == ["local"]
    began = time.monotonic()
    for number in range(2_000):
        assert (await store.take([Charge(FIVE, str(number))])).allowed
        await asyncio.sleep(0)
    assert time.monotonic() - began < 2_000 * 2 / 100, "they do not wait, though Redis is being asked meanwhile"
    assert store.counting == "local"
    await store.aclose()


async def wait_until_it_answers(shared: RedisStore) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            await shared.ping()
        except StoreUnavailable:
            assert time.monotonic() < deadline
        else:
            return


async def test_of_many_that_fail_at_once_one_tells(own_redis: RedisServer, store: FallbackStore, told: Told) -> None:
    assert (await store.take([ADA])).allowed
    own_redis.stop()
    taken = await asyncio.gather(*(store.take([Charge(FIVE, str(number))]) for number in range(100)))
    assert all(decision.allowed for decision in taken)
    assert told.events == ["local"]


async def test_a_redis_that_answers_but_cannot_count_is_away(
    own_redis: RedisServer, store: FallbackStore, told: Told
) -> None:
    """One that is full answers PING, too: to ask that would be to change to and fro."""
    assert (await store.take([ADA])).allowed
    async with Redis.from_url(own_redis.url) as redis:
        await redis.config_set("maxmemory", 1)
        assert await passes(store, ADA, 10) == 4
        asked = await calls(redis)
        async with asyncio.timeout(WITHIN_S):
            while await calls(redis) < asked + 3:  # noqa: ASYNC110 # what is waited for happens in Redis
                await asyncio.sleep(0.005)
        assert told.events == ["local"]
        await redis.config_set("maxmemory", 0)
        await wait_until(lambda: told.events == ["local", "shared"])


async def calls(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_evalsha"]["calls"])


async def test_a_redis_that_is_not_there_at_the_start_is_found_when_it_comes(
    own_redis: RedisServer, store: FallbackStore, told: Told
) -> None:
    own_redis.stop()
    assert (await store.take([ADA])).allowed
    own_redis.start()
    await wait_until(lambda: store.counting == "shared")
    assert told.events == ["local", "shared"]


def test_it_comes_back_in_another_event_loop_than_it_was_lost_in(own_redis: RedisServer, told: Told) -> None:
    store = FallbackStore(RedisStore(own_redis.url, timeout_s=5), on_change=told, ask_again_s=0.05)
    own_redis.stop()
    assert asyncio.run(passes(store, ADA, 1)) == 1
    own_redis.start()

    async def come_back() -> None:
        await store.take([ADA])
        await wait_until(lambda: store.counting == "shared")
        await store.aclose()

    asyncio.run(come_back())
    assert told.events == ["local", "shared"]


def test_it_comes_back_though_the_event_loop_it_was_lost_in_was_closed_with_a_task_in_it(
    own_redis: RedisServer, told: Told
) -> None:
    store = FallbackStore(RedisStore(own_redis.url, timeout_s=5), on_change=told, ask_again_s=0.05)
    own_redis.stop()

    async def lose() -> None:
        await store.take([ADA])
        await asyncio.sleep(0)  # let the asking begin

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(lose())
    finally:
        loop.close()  # which cancels nothing, other than `asyncio.run`
    own_redis.start()

    async def come_back() -> None:
        await store.take([ADA])
        await wait_until(lambda: store.counting == "shared")
        await store.aclose()

    asyncio.run(come_back())
    assert told.events == ["local", "shared"]


async def test_closing_ends_the_asking(told: Told) -> None:
    store = FallbackStore(RedisStore("redis://127.0.0.1:1/0", timeout_s=5), on_change=told, ask_again_s=3_600)
    before = asyncio.all_tasks()
    await store.take([ADA])
    assert len(asyncio.all_tasks() - before) == 1
    await asyncio.sleep(0)  # let it begin
    await store.aclose()
    assert not asyncio.all_tasks() - before
    assert told.events == ["local"]
