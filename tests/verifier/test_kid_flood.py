"""A flood of tokens that name random keys: one fetch in each cooldown, and no memory filled."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from jotgate import JotgateError, Verifier
from jotgate.core.encoding import encode_segment
from tests.verifier.servers import FakeIssuer

COOLDOWN_S = 30.0
THREADS, TASKS = 4, 50
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


def flood(verifier: Verifier, tokens: list[str]) -> Counter[str]:
    """Present all of them from threads and from the tasks of an event loop; how each was refused."""
    told: Counter[str] = Counter()
    lock = threading.Lock()
    threads, tasks = tokens[::2], tokens[1::2]

    def note(refusal: JotgateError) -> None:
        with lock:
            told[refusal.code] += 1

    def present(mine: list[str]) -> None:
        for token in mine:
            with pytest.raises(JotgateError) as caught:
                verifier.verify(token)
            note(caught.value)

    async def present_async() -> None:
        left = iter(tasks)

        async def one() -> None:
            for token in left:
                with pytest.raises(JotgateError) as caught:
                    await verifier.averify(token)
                note(caught.value)
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(TASKS)))

    workers = [threading.Thread(target=present, args=(threads[n::THREADS],)) for n in range(THREADS)]
    workers.append(threading.Thread(target=asyncio.run, args=(present_async(),)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return told


def check_flood(issuer: FakeIssuer, verifier: Verifier, count: int, monotonic: Callable[[], float]) -> None:
    good = issuer.token()
    verifier.verify(good)
    began = monotonic()
    tokens = list(itertools.islice(strangers(good), count))
    assert flood(verifier, tokens) == {"unknown_key": count}
    fetches = issuer.server.requests.count(issuer.jwks_path)
    # The first one, those that the flood is allowed, and those of the schedule, which the same clock makes due.
    passed_s = monotonic() - began
    assert 2 <= fetches <= 2 + passed_s // COOLDOWN_S + passed_s // (300 * 0.9)
    assert verifier.verify(good).subject == "alice"
    assert [*verifier.status().keys] == [issuer.key.kid]


def test_at_most_one_fetch_in_each_cooldown_however_many_tokens_name_random_keys(
    issuer: FakeIssuer, start: Start
) -> None:
    clock = Ticking()
    check_flood(issuer, start(cooldown_s=COOLDOWN_S, monotonic=clock), 4_000, clock)


@pytest.mark.soak
def test_100_000_tokens_with_random_keys(issuer: FakeIssuer, start: Start) -> None:
    clock = Ticking()
    check_flood(issuer, start(cooldown_s=COOLDOWN_S, monotonic=clock), 100_000, clock)


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
