"""Stores to test, and a clock that only tests move."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from secrets import token_hex

import pytest

from jotgate.throttle import FallbackStore, MemoryStore, Store
from jotgate.throttle.redis_store import RedisStore
from tests.services import RedisServer

# No test is about Redis being quick on a machine that does something else besides.
PATIENT_S = 30.0


class Clock:
    """Seconds, as tests say."""

    def __init__(self, now: float = 1e6) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


MakeRedisStore = Callable[[str], RedisStore]


@pytest.fixture
async def make_redis_store() -> AsyncIterator[MakeRedisStore]:
    """Makes stores of one deployment, with keys that no other test uses."""
    prefix = f"{token_hex(8)}:"
    async with AsyncExitStack() as stack:

        def make(url: str) -> RedisStore:
            store = RedisStore(url, prefix=prefix, timeout_s=PATIENT_S)
            stack.push_async_callback(store.aclose)
            return store

        yield make


@pytest.fixture(params=["memory", "redis", "fallback", "fallback without Redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Every kind of store, one by one."""
    async with AsyncExitStack() as stack:
        made: Store = MemoryStore()
        if request.param == "fallback without Redis":
            made = FallbackStore(RedisStore("redis://127.0.0.1:1/0", timeout_s=PATIENT_S), MemoryStore())
        elif request.param != "memory":
            server: RedisServer = request.getfixturevalue("redis_server")
            shared = RedisStore(server.url, prefix=f"{token_hex(8)}:", timeout_s=PATIENT_S)
            made = shared if request.param == "redis" else FallbackStore(shared, MemoryStore())
        close: Callable[[], Awaitable[None]] = made.aclose
        stack.push_async_callback(close)
        yield made
