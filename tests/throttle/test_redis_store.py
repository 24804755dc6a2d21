"""Redis as a store: one round trip, nothing that tells who somebody is, and never more than the limit together."""

import asyncio
import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex

import pytest
from redis.asyncio import Redis

from jotgate.server.tls import ensure_local_certificate
from jotgate.throttle import Charge, StoreUnavailable, parse_limit
from jotgate.throttle.redis_store import RedisStore
from tests.conftest import Need
from tests.services import PASSWORD, RedisServer, run_redis
from tests.throttle.conftest import MakeRedisStore
from tests.throttle.counting import EVERYBODY, HUNDRED

FIVE = parse_limit("5 per day", name="five")
ADA = Charge(FIVE, "ada@example.com")


@pytest.fixture
async def redis(own_redis: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(own_redis.url) as client:
        yield client


async def value_of(redis: Redis, key: bytes | str) -> bytes:
    value = await redis.get(key)
    assert isinstance(value, bytes)
    return value


async def calls_of(redis: Redis, command: str) -> int:
    told = await redis.info("commandstats")
    return int(told.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_two_stores_share_their_allowances(redis_server: RedisServer, make_redis_store: MakeRedisStore) -> None:
    one, other = make_redis_store(redis_server.url), make_redis_store(redis_server.url)
    passed = [(await store.take([ADA])).allowed for _ in range(4) for store in (one, other)]
    assert passed == [True] * 5 + [False] * 3
    await other.refund([ADA])
    assert (await one.take([ADA])).allowed


def test_two_processes_together_take_exactly_what_the_limit_holds(redis_server: RedisServer) -> None:
    """Twenty rounds, each with more calls of each process than the limit holds, at the same time."""
    rounds, calls, prefix = 20, 110, f"{token_hex(8)}:"
    command = [sys.executable, "-m", "tests.throttle.counting", redis_server.url, prefix, str(rounds), str(calls)]
    processes = [
        subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    sums, both = [], 0
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for _ in range(rounds):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            each = [int(process.stdout.readline()) for process in processes if process.stdout]
            sums.append(sum(each))
            both += min(each) > 0
    finally:
        for process in processes:
            process.communicate(timeout=60)
    assert sums == [HUNDRED.quota] * rounds
    assert both > 0, "never did both get something: they did not run at the same time"

    async def used_by_everybody() -> int:
        store = RedisStore(redis_server.url, prefix=prefix, timeout_s=30)
        decision = await store.take([Charge(EVERYBODY, "", 0)])
        await store.aclose()
        return EVERYBODY.burst - decision.standings[0].remaining

    assert abs(asyncio.run(used_by_everybody()) - rounds * HUNDRED.quota) < 60 * 12, "refusals have cost nothing"


async def test_a_decision_is_one_round_trip(
    own_redis: RedisServer, redis: Redis, make_redis_store: MakeRedisStore
) -> None:
    store = make_redis_store(own_redis.url)
    charges = [ADA, Charge(EVERYBODY, ""), Charge(HUNDRED, "192.0.2.1")]
    await store.take(charges)
    before = int((await redis.info("stats"))["total_commands_processed"])
    for _ in range(20):
        await store.take(charges)
    after = int((await redis.info("stats"))["total_commands_processed"])
    in_scripts = 20 * (1 + 2 * 3)  # TIME, and of each allowance GET and SET (refused ones only GET)
    assert after - before <= 20 + in_scripts + 1
    assert await calls_of(redis, "evalsha") == 21
    assert await calls_of(redis, "eval") == 1


async def test_redis_that_forgets_the_script_gets_it_again(
    own_redis: RedisServer, redis: Redis, make_redis_store: MakeRedisStore
) -> None:
    store = make_redis_store(own_redis.url)
    assert (await store.take([ADA])).allowed
    await redis.script_flush()
    decision = await store.take([ADA])
    assert decision.standings[0].remaining == 3, "counted once"
    await redis.script_flush()
    await store.refund([ADA])
    assert (await store.take([Charge(FIVE, ADA.key, 0)])).standings[0].remaining == 4


async def test_redis_learns_no_names_and_keeps_nothing_for_longer_than_it_counts(
    own_redis: RedisServer, redis: Redis, make_redis_store: MakeRedisStore
) -> None:
    store = make_redis_store(own_redis.url)
    limits = [parse_limit(text) for text in ("5 per day", "1/s", "7 per hour; burst=3")]
    await store.take([Charge(limit, "ada@example.com") for limit in limits])
    keys = await redis.keys()
    assert len(keys) == 3
    for key in keys:
        assert "ada" not in str(key)
        assert b"ada" not in await value_of(redis, key)
    left_ms = sorted([await redis.pttl(key) for key in keys])
    for ttl_ms, unit_s in zip(left_ms, (1, 3600 / 7, 86_400 / 5), strict=True):
        assert 0 < ttl_ms <= unit_s * 1000 + 1000
        assert ttl_ms > unit_s * 1000 - 60_000 or unit_s == 1
    await store.refund([Charge(limits[0], "ada@example.com")])
    assert len(await redis.keys()) <= 2, "what is not used is not kept"


async def test_a_clock_of_redis_that_was_set_back_locks_nobody_out(
    own_redis: RedisServer, redis: Redis, make_redis_store: MakeRedisStore
) -> None:
    """What is kept comes from a far future, as after a clock that was wrong: one window is waited for, at the most."""
    store = make_redis_store(own_redis.url)
    charge = Charge(parse_limit("2/s"), "ada")
    assert (await store.take([charge])).allowed
    (key,) = await redis.keys()
    units, at_us = struct.unpack(">dd", await value_of(redis, key))
    await redis.set(key, struct.pack(">dd", 2, at_us + 1e6 * 86_400 * 365))
    decision = await store.take([charge])
    assert not decision.allowed
    assert 1 <= decision.retry_after_s <= 1 + 1 / 2
    await redis.set(key, struct.pack(">dd", units, at_us + 1e6))
    assert (await store.take([charge])).standings[0].remaining == 0, "meanwhile what is left may be used"


async def test_numbers_stay_exact_in_redis(redis_server: RedisServer, make_redis_store: MakeRedisStore) -> None:
    store = make_redis_store(redis_server.url)
    limit = parse_limit("1000000 per 366 days", name="million")
    assert (await store.take([Charge(limit, "ada", 999_999)])).allowed
    assert (await store.take([Charge(limit, "ada")])).allowed
    refused = await store.take([Charge(limit, "ada")])
    assert not refused.allowed
    assert 0 < refused.retry_after_s <= 32


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://:wrong@{}/0"])
async def test_no_redis_or_the_wrong_password_is_a_store_that_is_unavailable(
    redis_server: RedisServer, url: str
) -> None:
    store = RedisStore(url.format(f"127.0.0.1:{redis_server.port}"), timeout_s=30)
    for work in (store.take([ADA]), store.refund([ADA]), store.ping()):
        with pytest.raises(StoreUnavailable) as outage:
            await work
        assert outage.value.code == "limit_store_unavailable"
        assert "wrong" not in str(outage.value)
    await store.aclose()


async def test_a_redis_that_is_silent_is_not_waited_for(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url, timeout_s=0.2, max_connections=1)
    for _ in range(50):  # on a busy machine the first connection may take longer than that
        try:
            await store.ping()
            break
        except StoreUnavailable:
            continue
    async with Redis.from_url(own_redis.url) as redis:
        await redis.client_pause(5_000)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.take([ADA])
    assert 0.19 <= time.monotonic() - began < 3
    began = time.monotonic()
    many = await asyncio.gather(*(store.take([ADA]) for _ in range(30)), return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in many)
    assert time.monotonic() - began < 3, "nor is one after the other waited for, where there is one connection"
    await store.aclose()


async def test_after_a_restart_of_redis_one_call_fails_and_no_more(own_redis: RedisServer) -> None:
    """Though many connections lie ready that have ended."""
    store = RedisStore(own_redis.url, timeout_s=30)
    await asyncio.gather(*(store.take([Charge(HUNDRED, "ada")]) for _ in range(50)))
    own_redis.restart()
    with contextlib.suppress(StoreUnavailable):
        await store.take([ADA])
    await asyncio.gather(*(store.take([Charge(HUNDRED, "ada")]) for _ in range(50)))
    await store.aclose()


async def test_more_calls_than_connections_wait_for_one(own_redis: RedisServer, redis: Redis) -> None:
    store = RedisStore(own_redis.url, timeout_s=30, max_connections=3)
    taken = await asyncio.gather(*(store.take([Charge(HUNDRED, "ada")]) for _ in range(150)))
    assert sum(decision.allowed for decision in taken) == 100
    named = [client for client in await redis.client_list() if client["name"] == "jotgate-limits"]
    assert 1 <= len(named) <= 3
    await store.aclose()


async def test_a_call_that_is_cancelled_ends_so(redis_server: RedisServer, make_redis_store: MakeRedisStore) -> None:
    """Whatever the driver is in the middle of: else a task that goes on asking could not be ended."""
    store = make_redis_store(redis_server.url)
    for turns in range(40):
        calls = [asyncio.create_task(store.take([Charge(EVERYBODY, "ada")])) for _ in range(4)]
        for _ in range(turns % 10):
            await asyncio.sleep(0)
        cancelled = [call for call in calls if call.cancel()]
        await asyncio.wait(calls)
        assert [call for call in cancelled if not call.cancelled()] == []
    assert (await store.take([ADA])).allowed


def test_each_event_loop_has_connections_of_its_own(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, timeout_s=30, prefix=f"{token_hex(8)}:")

    async def use() -> int:
        decision = await store.take([ADA])
        await store.aclose()
        return decision.standings[0].remaining

    assert [asyncio.run(use()) for _ in range(3)] == [4, 3, 2]


def test_event_loops_that_have_ended_leave_no_connections(own_redis: RedisServer) -> None:
    """A program that runs each of its tasks in an event loop of its own, and closes nothing."""
    store = RedisStore(own_redis.url, timeout_s=30)

    async def connections() -> int:
        async with Redis.from_url(own_redis.url) as redis:
            return len([client for client in await redis.client_list() if client["name"] == "jotgate-limits"])

    for _ in range(5):
        asyncio.run(store.take([ADA]))
    deadline = time.monotonic() + 30
    while asyncio.run(connections()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "answer",
    [b"+OK\r\n", b":abc\r\n", b":1\r\n", b"$zz\r\n", b"*2\r\n:1\r\n+short\r\n", b"*1\r\n:1\r\n", b"220\r\n"],
)
async def test_what_answers_but_is_no_redis_is_a_store_that_is_unavailable(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                writer.write(answer * 4)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        store = RedisStore(f"redis://127.0.0.1:{port}/0", timeout_s=5)
        for work in (store.take([ADA]), store.refund([ADA]), store.ping()):
            with pytest.raises(StoreUnavailable):
                await work
        await store.aclose()


async def test_closing_does_not_fail_for_a_redis_that_is_silent(
    need: Need, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS takes leave of the other side, which does not answer."""
    local = ensure_local_certificate(tmp_path, int(time.time()))
    monkeypatch.setenv("SSL_CERT_FILE", str(local.ca))
    with run_redis(need("redis-server"), certificate=local.cert, key=local.key) as server:
        store = RedisStore(server.url, timeout_s=1)
        for _ in range(50):  # on a busy machine the first connection may take longer than that
            with contextlib.suppress(StoreUnavailable):
                await store.ping()
                break
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await store.aclose()
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_what_it_says_of_itself_has_no_password(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url)
    assert PASSWORD not in repr(store)
    await store.aclose()
