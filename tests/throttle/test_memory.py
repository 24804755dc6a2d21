"""The memory store under a flood of keys: bounded, and nobody gets free by it."""

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from jotgate.throttle import Charge, InvalidLimit, Limit, MemoryStore, memory, parse_limit
from jotgate.throttle.memory import MAX_LIMITS
from tests.throttle.conftest import Clock

FIVE = parse_limit("5 per minute")
ONE = parse_limit("1 per minute")
ENTRIES = 1_000


def takes(store: MemoryStore, limit: Limit, key: str, cost: int = 1) -> bool:
    return store.take_now([Charge(limit, key, cost)]).allowed


def exhaust(store: MemoryStore, limit: Limit, key: str) -> None:
    for _ in range(limit.burst):
        assert takes(store, limit, key)
    assert not takes(store, limit, key)


def remaining(store: MemoryStore, limit: Limit, key: str) -> int:
    return store.take_now([Charge(limit, key, 0)]).standings[0].remaining


def distinct(count: int) -> Iterator[str]:
    """Keys of every kind: short ones, long ones, and of characters that take four bytes each."""
    for number in range(count):
        text = str(number)
        yield (text, f"192.0.2.{text}", text.rjust(64, "x"), f"{text}\U0001f4a1", text * 20)[number % 5]


@pytest.mark.parametrize("limit", [FIVE, ONE])
def test_a_flood_of_keys_frees_nobody_who_is_limited(limit: Limit, clock: Clock) -> None:
    store = MemoryStore(max_entries=ENTRIES, clock=clock)
    limited = [f"attacker {n}" for n in range(100)]
    for key in limited:
        exhaust(store, limit, key)
    for number, key in enumerate(distinct(30 * ENTRIES)):
        takes(store, limit, key)
        if number % 100 == 0:
            assert not takes(store, limit, limited[number // 100 % 100])
    assert not [key for key in limited if takes(store, limit, key)]
    assert len(store) == ENTRIES
    clock.advance(60)
    for key in limited:
        exhaust(store, limit, key)


def test_a_flood_gives_nothing_back_to_who_is_not_yet_limited(clock: Clock) -> None:
    """Somebody guesses four times, drives the entry out with a flood, and has one guess left, not five."""
    store = MemoryStore(max_entries=ENTRIES, clock=clock)
    guessers = [f"guesser {number}" for number in range(20)]
    for key in guessers:
        for _ in range(4):
            assert takes(store, FIVE, key)
    for key in distinct(100 * ENTRIES):
        takes(store, FIVE, key)
    for key in guessers:
        assert remaining(store, FIVE, key) <= 1
        assert sum(takes(store, FIVE, key) for _ in range(5)) <= 1


@pytest.mark.parametrize("shared", [32_768, 50, 1])
def test_nobody_uses_more_than_the_limit_however_keys_take_turns(
    shared: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more keys than entries, all of them at it: none has more than the quota and the burst.

    With few shared allowances many keys have the same one, as they do in a flood that is larger than a test's.
    """
    monkeypatch.setattr(memory, "_SHARED", shared)
    store = MemoryStore(max_entries=64, clock=clock)
    passed = dict.fromkeys((str(n) for n in range(400)), 0)
    for _ in range(60):
        for key in passed:
            passed[key] += takes(store, FIVE, key)
        clock.advance(1)
    assert max(passed.values()) <= FIVE.quota + FIVE.burst
    assert sum(passed.values()) >= 64 * FIVE.quota


def test_who_was_driven_out_is_not_forgotten_for_one_who_used_less(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two keys that share an allowance are driven out, first the one that used more: that is what still counts."""
    monkeypatch.setattr(memory, "_SHARED", 1)
    store = MemoryStore(max_entries=8, clock=clock)
    for number in range(8):
        assert takes(store, FIVE, f"{number}", 4)
    assert takes(store, FIVE, "drives out the first"), "which has used four"
    assert takes(store, FIVE, "drives out that one"), "which has used one"
    assert not takes(store, FIVE, "0", 2)
    assert remaining(store, FIVE, "0") <= 1


def test_after_the_flood_everybody_has_the_whole_limit_again(clock: Clock) -> None:
    store = MemoryStore(max_entries=ENTRIES, clock=clock)
    for key in distinct(30 * ENTRIES):
        takes(store, ONE, key)
    clock.advance(60)
    for number in range(2 * ENTRIES):
        assert takes(store, ONE, f"new {number}")
        clock.advance(60 / ENTRIES)


def test_a_flood_of_one_limits_keys_does_not_touch_another_limits_allowances(clock: Clock) -> None:
    store = MemoryStore(max_entries=ENTRIES, clock=clock)
    everybody = parse_limit("100 per hour", name="everybody")
    for _ in range(30):
        assert takes(store, everybody, "")
    for key in distinct(30 * ENTRIES):
        takes(store, FIVE, key)
    assert remaining(store, everybody, "") == 70
    assert remaining(store, everybody, "somebody else") == 100


def test_what_is_refused_gets_no_entry(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    everybody = parse_limit("3 per minute", name="everybody")
    for key in distinct(1000):
        store.take_now([Charge(everybody, ""), Charge(FIVE, key)])
        store.take_now([Charge(FIVE, f"{key}'s", 0)])
    assert len(store) == 1 + 3


def test_entries_that_limit_somebody_are_not_replaced(clock: Clock) -> None:
    """Not even those that soon will not: each has kept its own, so that giving back still works."""
    store = MemoryStore(max_entries=8, clock=clock)
    for number in range(8):
        exhaust(store, FIVE, f"{number}")
    clock.advance(6)
    for key in distinct(1_000):
        takes(store, FIVE, f"new {key}")
    for number in range(8):
        assert not takes(store, FIVE, f"{number}")
        store.refund_now([Charge(FIVE, f"{number}")])
        assert takes(store, FIVE, f"{number}")


def test_giving_back_during_a_flood_frees_nobody_else(clock: Clock) -> None:
    """Who shares an allowance cannot give back what others have used."""
    store = MemoryStore(max_entries=8, clock=clock)
    for number in range(8):
        exhaust(store, ONE, f"first {number}")
    sharing = [f"{number}" for number in range(100_000)]
    passed = [key for key in sharing if takes(store, ONE, key)]
    assert len(passed) < len(sharing) / 2
    for key in sharing:
        store.refund_now([Charge(ONE, key)])
    assert not any(takes(store, ONE, key) for key in passed)


def memory_of(work: Callable[[], None]) -> int:
    """The bytes that Python's memory has grown by at the most."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def flood(store: MemoryStore, keys: int) -> None:
    exhaust(store, FIVE, "the first attacker")
    for key in distinct(keys):
        takes(store, FIVE, key)
        takes(store, ONE, key)
    assert not takes(store, FIVE, "the first attacker")


def test_memory_stays_below_its_bound(clock: Clock) -> None:
    store = MemoryStore(max_entries=5_000, clock=clock)
    grown = memory_of(lambda: flood(store, 20_000))
    assert grown < store.max_bytes
    # The promise is not empty: it is little more than what entries and two limits' shared allowances can need.
    assert store.max_bytes < 5_000 * 400 + MAX_LIMITS * 2**20


@pytest.mark.parametrize("filler", ["x" * 58, "x" * 5_000, "\U0001f4a1" * 58])
def test_an_entry_takes_no_more_than_is_counted_for_it(filler: str, clock: Clock) -> None:
    store = MemoryStore(max_entries=20_000, clock=clock)

    def fill() -> None:
        for number in range(20_000):
            takes(store, FIVE, f"{number % 10_000:03}{filler}{number // 10_000}")

    takes(store, FIVE, "first")
    assert memory_of(fill) < 20_000 * 384


@pytest.mark.soak
def test_a_million_keys(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    grown = memory_of(lambda: flood(store, 1_000_000))
    assert grown < store.max_bytes < 48 * 2**20
    assert len(store) == store.max_entries


def test_limits_are_as_many_as_a_program_has(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    for number in range(MAX_LIMITS):
        assert takes(store, parse_limit("5/s", name=f"limit {number}"), "ada")
    with pytest.raises(InvalidLimit, match="belongs into the key"):
        takes(store, FIVE, "ada")
    with pytest.raises(InvalidLimit, match="different numbers"):
        takes(store, parse_limit("6/s", name="limit 1"), "ada")


def test_a_store_has_room_for_a_few() -> None:
    with pytest.raises(ValueError, match="8 or more"):
        MemoryStore(max_entries=7)


def test_recording_counts_what_does_not_fit(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    for _ in range(3):
        store.record([Charge(FIVE, "ada", 2), Charge(ONE, "ada")])
    assert not takes(store, FIVE, "ada")
    clock.advance(12)
    assert takes(store, FIVE, "ada"), "and never more than the burst, so that nobody waits for longer"


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Lets another thread have its turn at each call of a function, which by itself happens every 5 ms."""
    threading.setprofile(lambda *_: time.sleep(0))
    yield
    threading.setprofile(None)


@pytest.mark.usefixtures("restless_threads")
def test_threads_take_no_more_than_the_limit_together() -> None:
    store = MemoryStore(max_entries=100)
    limit, other = parse_limit("500 per day"), parse_limit("1000000 per day")
    passed: list[int] = []

    def work() -> None:
        taken = [store.take_now([Charge(limit, "ada")]).allowed for _ in range(300)]
        both = [store.take_now([Charge(other, str(n)), Charge(other, "everybody")]).allowed for n in range(150)]
        store.refund_now([Charge(other, "everybody", sum(both))])
        passed.append(sum(taken))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 500
    assert remaining(store, other, "everybody") == 1_000_000
    assert len(store) == 100
