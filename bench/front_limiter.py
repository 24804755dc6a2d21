"""What a decision of the limiter costs, in memory and in Redis: jotgate, `limits` and `throttled-py`, turn by turn.

``python -m bench.front_limiter [--rounds N] [--keys N] [--json FILE]``. One event loop on one core; Redis, a process of
this benchmark's own on loopback, has another. In each round every side decides so many times, in another order, for
keys of its own; of each round the mean counts, of all rounds the median. All are asked for a limit that is never
reached (the libraries for 100,000,000 a day, jotgate for the 1,000,000 that it allows), then for one that always
refuses. Three limits are one call where a library has that, else three calls.

A flood of distinct keys tells two more things: how much memory is in use afterwards (as Python's allocator counts it,
in a run that is not timed), and whether somebody who was limited before the flood still is.
"""

import asyncio
import contextlib
import importlib
import shutil
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bench import tokens_install
from bench.report import Report, Row, Target, pinned, publish, run_options, usable_cores
from bench.sessions_processes import free_port
from jotgate.throttle import Charge, Limit, MemoryStore, Store, parse_limit
from jotgate.throttle.redis_store import RedisStore

PACKAGES = ("jotgate", "limits", "throttled-py", "redis", "msgspec")
MEMORY_US = 3.0
IN_MEMORY, IN_REDIS = 2_000, 200
_FLOOD_LIMIT = 5
_CORES = usable_cores()

Decide = Callable[[str], Awaitable[bool]]


@dataclass(slots=True)
class Side:
    """One library with one kind of store; each function decides about one key, and says whether it was allowed."""

    name: str
    one: Decide
    """Under a limit that is never reached."""
    none: Decide
    """Under a limit of one a day."""
    three: Decide
    """Under three limits that are never reached."""
    five: Decide
    """Under a limit of five an hour."""


def ours(name: str, store: Store) -> Side:
    """jotgate with one of its stores."""

    def under(*limits: Limit) -> Decide:
        async def decide_all(key: str) -> bool:
            return (await store.take([Charge(limit, key) for limit in limits])).allowed

        async def decide(key: str) -> bool:
            return (await store.take((Charge(only, key),))).allowed

        only = limits[0]
        return decide_all if len(limits) > 1 else decide

    wide = [parse_limit("1000000/day", name=f"wide {number}") for number in range(3)]
    return Side(
        name, under(wide[0]), under(parse_limit("1/day")), under(*wide), under(parse_limit(f"{_FLOOD_LIMIT}/hour"))
    )


def ours_without_a_loop(store: MemoryStore) -> Side:
    """jotgate's memory, called without `await`, as a program without an event loop does."""
    side = ours("jotgate, take_now", store)

    wide = parse_limit("1000000/day", name="wide 0")

    async def decide(key: str) -> bool:
        return store.take_now((Charge(wide, key),)).allowed

    side.one = decide
    return side


def limits_sides(url: str | None) -> list[Side]:
    """`limits`, by each strategy that it offers."""
    aio = importlib.import_module("limits.aio")
    parse = importlib.import_module("limits").parse

    def side(strategy: str, short: str) -> Side:
        storage = (
            aio.storage.MemoryStorage()
            if url is None
            else aio.storage.RedisStorage(f"async+{url}", implementation="redispy")
        )
        limiter = getattr(aio.strategies, strategy)(storage)

        def under(*texts: str) -> Decide:
            limits = [parse(text) for text in texts]

            async def decide_all(key: str) -> bool:
                passed = True
                for limit in limits:
                    passed = await hit(limit, key) and passed
                return passed

            async def decide(key: str) -> bool:
                passed: bool = await hit(only, key)
                return passed

            only, hit = limits[0], limiter.hit
            return decide_all if len(limits) > 1 else decide

        wide = [f"100000000/{unit}" for unit in ("day", "month", "year")]
        return Side(f"limits, {short}", under(wide[0]), under("1/day"), under(*wide), under(f"{_FLOOD_LIMIT}/hour"))

    return [
        side("FixedWindowRateLimiter", "fixed window"),
        side("SlidingWindowCounterRateLimiter", "sliding window counter"),
        side("MovingWindowRateLimiter", "moving window"),
    ]


def throttled_side(url: str | None) -> Side:
    """`throttled-py`, by the same algorithm as ours, with memory for as many keys as ours."""
    throttled = importlib.import_module("throttled.asyncio")
    store = (
        throttled.MemoryStore(options={"MAX_SIZE": 65_536})
        if url is None
        else throttled.RedisStore(server=url, options={"REUSE_CONNECTION": True})
    )

    def under(name: str, *quotas: Any) -> Decide:  # noqa: ANN401 # a library without types here
        limiters = [
            throttled.Throttled(using="gcra", quota=quota, store=store, key_prefix=f"{name} {number}")
            for number, quota in enumerate(quotas)
        ]

        async def decide_all(key: str) -> bool:
            passed = True
            for limiter in limiters:
                passed = not (await limiter.limit(key)).limited and passed
            return passed

        async def decide(key: str) -> bool:
            return not (await only.limit(key)).limited

        only = limiters[0]
        return decide_all if len(limiters) > 1 else decide

    wide = throttled.per_day(100_000_000, burst=100_000_000)
    return Side(
        "throttled-py, GCRA",
        under("wide", wide),
        under("none", throttled.per_day(1, burst=1)),
        under("wide", wide, wide, wide),
        under("five", throttled.per_hour(_FLOOD_LIMIT, burst=_FLOOD_LIMIT)),
    )


async def time_decisions(decide: Decide, keys: Sequence[str]) -> float:
    """Decide about each key; microseconds for one."""
    for key in keys[: len(keys) // 10]:
        await decide(key)
    began = time.perf_counter()
    for key in keys:
        await decide(key)
    return (time.perf_counter() - began) / len(keys) * 1e6


async def measure(report: Report, where: str, sides: Sequence[Side], count: int, rounds: int) -> dict[str, list[float]]:
    """Let all sides take turns; the rounds of a decision under one limit, by side."""
    took: dict[tuple[str, str], list[float]] = {}
    order = list(sides)
    for number in range(rounds):
        order = order[1:] + order[:1] if number % 2 else order[::-1]
        for side in order:
            await side.none(f"refused {number}")
            for what, decide, keys in (
                ("allowed, one key", side.one, [f"{number}"] * count),
                ("allowed, new keys", side.one, [f"{number} {key}" for key in range(count)]),
                ("refused", side.none, [f"refused {number}"] * count),
                ("three limits", side.three, [f"{number}"] * (count // 2)),
            ):
                took.setdefault((what, side.name), []).append(await time_decisions(decide, keys))
    for (what, name), samples in sorted(took.items(), key=lambda item: item[0][0]):
        report.rows.append(Row.of(f"{where}, {what}: {name}", samples, "µs"))
    return {name: samples for (what, name), samples in took.items() if what == "allowed, one key"}


async def flood(report: Report, side: Side, keys: int) -> None:
    """Limit somebody, let distinct keys come, and see what they cost and whom they freed."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(_FLOOD_LIMIT + 1):
        last = await side.five("the first")
    assert not last, f"{side.name} does not limit"
    for number in range(keys):
        await side.five(f"{number}")
    grown = (tracemalloc.get_traced_memory()[0] - before) / 2**20
    freed = float(await side.five("the first"))
    tracemalloc.stop()
    report.rows += [
        Row(f"memory, {keys:,} distinct keys: {side.name}", grown, "MiB", grown, grown, 1),
        Row(f"memory, the first one is limited no more: {side.name}", freed, "", freed, freed, 1),
    ]


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of this benchmark's own; its address."""
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed")
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with pinned(_CORES[:1]):
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    with server:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


async def wait_until_it_answers(url: str) -> None:
    """Return when Redis is up."""
    async with asyncio.timeout(30), Redis.from_url(url) as redis:
        while True:
            with contextlib.suppress(RedisConnectionError):
                await redis.ping()
                return
            await asyncio.sleep(0.02)


def bare_side(redis: Redis) -> Side:
    """The least that Redis can cost by this driver: a PING, which decides nothing."""

    async def ping(_: str) -> bool:
        return bool(await redis.ping())

    return Side("(one bare round trip)", ping, ping, ping, ping)


async def run(report: Report, url: str, rounds: int, keys: int) -> None:
    """Measure everything."""
    store = MemoryStore()
    sides = [ours("jotgate", store), ours_without_a_loop(store), *limits_sides(None), throttled_side(None)]
    in_memory = await measure(report, "memory", sides, IN_MEMORY, rounds)
    await wait_until_it_answers(url)
    shared = RedisStore(url, timeout_s=10)
    async with Redis.from_url(url) as bare:
        sides = [ours("jotgate", shared), *limits_sides(url)[:2], throttled_side(url), bare_side(bare)]
        in_redis = await measure(report, "Redis", sides, IN_REDIS, rounds)
    await shared.aclose()
    for where, took in (("memory", in_memory), ("Redis", in_redis)):
        for name, samples in took.items():
            if name != "jotgate":
                compared = [other / own for own, other in zip(took["jotgate"], samples, strict=True)]
                report.rows.append(Row.of(f"{where}: {name}, times jotgate's", compared, "x"))
    for side in [ours("jotgate", MemoryStore()), *limits_sides(None)[:2], throttled_side(None)]:
        await flood(report, side, keys)
    report.targets.append(Target("memory, allowed, one key, µs", MEMORY_US, statistics.median(in_memory["jotgate"])))


def main() -> None:
    """Run with the options of the command line."""
    options = run_options(__doc__.splitlines()[0], rounds=40, keys=200_000)
    tokens_install.install_peers()
    tokens_install.add_to_path()
    report = Report("front_limiter", PACKAGES)
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url, pinned(_CORES[-1:]):
        asyncio.run(run(report, url, options.rounds, options.keys))
    publish(report, options.json)


if __name__ == "__main__":
    main()
