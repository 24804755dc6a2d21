"""A flood of tokens that name random keys: one fetch in each cooldown, and no memory filled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import ssl
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple

import pytest

from jotgate import JotgateError, UnknownKey, Verifier, generate_key
from jotgate.core.encoding import encode_segment
from jotgate.verifier.remote import RemoteKeys
from tests.verifier.feed_server import wait_until
from tests.verifier.servers import WITHIN_S, FakeIssuer

COOLDOWN_S = 30.0
THREADS, TASKS = 4, 50
USES = 20
Start = Callable[..., Verifier]


def strangers(good: str) -> Iterator[str]:
    """Endlessly many tokens, each naming a key of its own."""
    _, payload, signature = good.split(".")
    while True:
        header = {"alg": "ES256", "typ": "at+jwt", "kid": encode_segment(os.urandom(16))}
        yield f"{encode_segment(json.dumps(header).encode())}.{payload}.{signature}"


class Ticking:
    """A monotonic clock that goes on by a thousandth of a second at each look: a minute for sixty thousand looks."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> float:
        return next(self._ticks) / 1000


class Flooded(NamedTuple):
    """What came of a flood."""

    told: Counter[str]
    """How often strangers' tokens were refused, by code."""
    served: int
    """How often another thread verified the good token meanwhile."""
    served_in_loop: int
    """The same for a task of the event loop in which strangers' tokens are presented, too."""


def flood(verifier: Verifier, good: str, tokens: list[str]) -> Flooded:
    """Present all of `tokens`, and more until two others have used `good`, from threads and tasks of an event loop."""
    told: Counter[str] = Counter()
    lock = threading.Lock()
    over = threading.Event()
    served = served_in_loop = 0

    def presented(mine: list[str]) -> Iterator[str]:
        yield from mine
        for token in strangers(good):
            if over.is_set() or min(served, served_in_loop) >= USES:
                return
            yield token

    def note(refusal: JotgateError) -> None:
        with lock:
            told[refusal.code] += 1

    def present(mine: list[str]) -> None:
        for token in presented(mine):
            with pytest.raises(JotgateError) as caught:
                verifier.verify(token)
            note(caught.value)

    def use() -> None:
        nonlocal served
        try:
            while not over.is_set():
                verifier.verify(good)
                served += 1
                over.wait(0.001)  # as fast as it goes, the clock of ticks would outrun the fetches
        except JotgateError:
            over.set()
            raise

    async def use_async() -> None:
        nonlocal served_in_loop
        try:
            while True:
                await verifier.averify(good)
                served_in_loop += 1
                await asyncio.sleep(0)
        except JotgateError:
            over.set()
            raise

    async def present_async() -> None:
        left = presented(tokens[1::2])

        async def one() -> None:
            for token in left:
                with pytest.raises(JotgateError) as caught:
                    await verifier.averify(token)
                note(caught.value)
                await asyncio.sleep(0)

        user = asyncio.create_task(use_async())
        await asyncio.gather(*(one() for _ in range(TASKS)))
        user.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # whatever else had ended it is raised
            await user

    with ThreadPoolExecutor(THREADS + 2) as pool:
        user = pool.submit(use)
        parts = [pool.submit(present, tokens[2 * n :: 2 * THREADS]) for n in range(THREADS)]
        parts.append(pool.submit(asyncio.run, present_async()))
        wait(parts)
        over.set()
        for part in (user, *parts):
            part.result()
    return Flooded(told, served, served_in_loop)


def check_flood(issuer: FakeIssuer, verifier: Verifier, count: int, monotonic: Callable[[], float]) -> None:
    good = issuer.token()
    verifier.verify(good)
    began = monotonic()
    tokens = list(itertools.islice(strangers(good), count))
    flooded = flood(verifier, good, tokens)
    assert [*flooded.told] == ["unknown_key"]
    assert flooded.told.total() >= count
    assert min(flooded.served, flooded.served_in_loop) >= USES
    fetches = issuer.server.requests.count(issuer.jwks_path)
    # The first one, those that the flood is allowed, and those of the schedule, which the same clock makes due.
    passed_s = monotonic() - began
    assert 2 <= fetches <= 2 + passed_s // COOLDOWN_S + passed_s // (300 * 0.9)
    assert verifier.verify(good).subject == "alice"
    assert [*verifier.status().keys] == [issuer.key.kid]


@pytest.mark.parametrize("cache_entries", [4096, 0])
def test_at_most_one_fetch_in_each_cooldown_however_many_tokens_name_random_keys(
    issuer: FakeIssuer, start: Start, cache_entries: int
) -> None:
    clock = Ticking()
    check_flood(issuer, start(cooldown_s=COOLDOWN_S, monotonic=clock, cache_entries=cache_entries), 4_000, clock)


@pytest.mark.soak
def test_100_000_tokens_with_random_keys(issuer: FakeIssuer, start: Start) -> None:
    clock = Ticking()
    check_flood(issuer, start(cooldown_s=COOLDOWN_S, monotonic=clock), 100_000, clock)


def remote_of(verifier: Verifier) -> RemoteKeys:
    assert verifier._remote is not None
    return verifier._remote


@pytest.mark.parametrize("freshness", ["background", "inline"])
def test_while_the_cooldown_runs_a_strangers_token_waits_for_no_lock(
    issuer: FakeIssuer, start: Start, freshness: str
) -> None:
    """Threads that flood would queue for it, and an event loop among them, with everybody whom it serves."""
    verifier, good = start(cooldown_s=1e9, freshness=freshness), issuer.token()
    verifier.verify(good)
    names = strangers(good)
    with pytest.raises(UnknownKey):  # the one that is fetched for
        verifier.verify(next(names))
    remote = remote_of(verifier)

    def present() -> None:
        for token in itertools.islice(names, 100):
            with pytest.raises(UnknownKey):
                verifier.verify(token)
        verifier.verify(good)

    with ThreadPoolExecutor(1) as pool, remote._changed:
        pool.submit(present).result(WITHIN_S)
    assert issuer.server.requests.count(issuer.jwks_path) == 2


@pytest.mark.parametrize("look", [1, 2, 3, 4])
def test_a_key_that_comes_at_any_moment_of_the_looks_without_the_lock_is_not_missed(
    issuer: FakeIssuer, start: Start, look: int
) -> None:
    """The fetch that brings the key ends at one of the verifying thread's looks at the clock."""
    me, held = threading.get_ident(), threading.Event()
    looks: Iterator[int] = itertools.repeat(0)

    def monotonic() -> float:
        if threading.get_ident() == me and next(looks) == look:
            held.set()
            if not remote._changed._is_owned():  # type: ignore[attr-defined] # where the fetch would wait for us
                wait_until(lambda: added.kid in verifier.status().keys and not remote._next.in_flight)
        return time.monotonic()

    verifier, added = start(cooldown_s=1e9, monotonic=monotonic), generate_key("ES256")
    remote = remote_of(verifier)
    verifier.verify(issuer.token())
    issuer.publish(issuer.key, added)
    answer = issuer.server.answers[issuer.jwks_path]

    def later(connection: ssl.SSLSocket) -> None:
        held.wait(WITHIN_S)
        answer(connection)

    issuer.server.answers[issuer.jwks_path] = later
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(verifier.verify, issuer.token(added))
        issuer.server.wait_requests(2, issuer.jwks_path)
        looks = itertools.count(1)
        try:
            assert verifier.verify(issuer.token(added)).subject == "alice"
        finally:
            held.set()
        assert first.result(WITHIN_S).subject == "alice"
    assert issuer.server.requests.count(issuer.jwks_path) == 2


def test_nothing_of_a_strangers_token_is_kept(issuer: FakeIssuer, start: Start) -> None:
    verifier, good = start(cooldown_s=1e9), issuer.token()
    verifier.verify(good)
    names = strangers(good)

    def present(count: int) -> None:
        for token in itertools.islice(names, count):
            with pytest.raises(JotgateError):
                verifier.verify(token)

    present(500)  # whatever is made once
    tracemalloc.start()
    try:
        present(200)
        before, _ = tracemalloc.get_traced_memory()
        present(2_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000  # 25 bytes each: not even a `kid`
