"""What every store has to do, run on each of them: memory, a real Redis, and both together."""

import asyncio
import time

import pytest

from jotgate.throttle import Charge, InvalidLimit, Store, parse_limit

# So slow that nothing comes back while a test runs.
FIVE = parse_limit("5 per day", name="five")
THREE = parse_limit("3 per day", name="three")
TEN = parse_limit("10 per day", name="ten")


async def allowed(store: Store, *charges: Charge) -> bool:
    return (await store.take(charges)).allowed


async def remaining(store: Store, *charges: Charge) -> list[int]:
    looking = [Charge(charge.limit, charge.key, 0) for charge in charges]
    return [standing.remaining for standing in (await store.take(looking)).standings]


async def test_it_takes_what_the_limit_holds_and_no_more(store: Store) -> None:
    ada, bob = Charge(FIVE, "ada"), Charge(FIVE, "bob")
    decisions = [await store.take([ada]) for _ in range(7)]
    assert [decision.allowed for decision in decisions] == [True] * 5 + [False] * 2
    assert [decision.standings[0].remaining for decision in decisions] == [4, 3, 2, 1, 0, 0, 0]
    unit_s = 86_400 / 5
    for number, decision in enumerate(decisions):
        (standing,) = decision.standings
        assert standing.limit == FIVE
        assert standing.reset_after_s == pytest.approx(unit_s * min(number + 1, 5), abs=60)
        assert standing.retry_after_s == pytest.approx(0 if number < 5 else unit_s, abs=60)
        assert decision.retry_after_s == standing.retry_after_s
    assert await allowed(store, bob), "another key has an allowance of its own"
    assert await allowed(store, Charge(TEN, "ada")), "and so has another limit"


async def test_what_is_used_comes_back_bit_by_bit(store: Store) -> None:
    """Forty a second, two at once: the third has to wait for a fortieth, which tells when it may come."""
    charge = Charge(parse_limit("40/s; burst=2"), "ada")
    began, passed = time.monotonic(), 0
    while passed < 20:
        decision = await store.take([charge])
        if decision.allowed:
            passed += 1
            continue
        assert 0 < decision.retry_after_s <= 1 / 40
        await asyncio.sleep(decision.retry_after_s)
        assert await allowed(store, charge)
        passed += 1
    assert time.monotonic() - began >= (20 - 2 - 1) / 40


async def test_costs(store: Store) -> None:
    assert await allowed(store, Charge(TEN, "ada", 7))
    refused = await store.take([Charge(TEN, "ada", 4)])
    assert not refused.allowed
    assert refused.standings[0].remaining == 3
    assert refused.retry_after_s == pytest.approx(86_400 / 10, abs=60)
    assert await allowed(store, Charge(TEN, "ada", 3))
    assert not await allowed(store, Charge(TEN, "ada", 1))
    assert await allowed(store, Charge(TEN, "ada", 0)), "asking how things stand is free"
    assert await remaining(store, Charge(TEN, "ada")) == [0]


async def test_asking_how_things_stand_uses_nothing_up(store: Store) -> None:
    assert await remaining(store, Charge(FIVE, "ada"), Charge(TEN, "ada")) == [5, 10]
    assert await remaining(store, Charge(FIVE, "ada"), Charge(TEN, "ada")) == [5, 10]


async def test_several_limits_are_charged_together_or_not_at_all(store: Store) -> None:
    both = Charge(FIVE, "ada"), Charge(THREE, "192.0.2.1")
    for _ in range(3):
        assert await allowed(store, *both)
    refused = await store.take(both)
    assert not refused.allowed
    assert refused.violated == ("three",)
    assert [standing.allowed for standing in refused.standings] == [True, False]
    assert [standing.remaining for standing in refused.standings] == [2, 0]
    assert refused.standings[0].retry_after_s == 0
    for _ in range(10):
        assert not await allowed(store, *both)
    assert await remaining(store, *both) == [2, 0], "what was refused has cost nothing"
    assert await allowed(store, both[0])
    assert await remaining(store, *both) == [1, 0]


async def test_the_order_of_limits_does_not_matter(store: Store) -> None:
    for _ in range(3):
        assert await allowed(store, Charge(THREE, "ada"), Charge(FIVE, "ada"))
    assert not await allowed(store, Charge(THREE, "ada"), Charge(FIVE, "ada"))
    assert not await allowed(store, Charge(FIVE, "ada"), Charge(THREE, "ada"))
    assert await remaining(store, Charge(FIVE, "ada")) == [2]


async def test_giving_back(store: Store) -> None:
    ada = Charge(FIVE, "ada")
    for _ in range(5):
        assert await allowed(store, ada)
    await store.refund([ada, Charge(THREE, "ada", 3)])
    assert await remaining(store, ada, Charge(THREE, "ada")) == [1, 3]
    assert await allowed(store, ada)
    assert not await allowed(store, ada)
    await store.refund([Charge(FIVE, "ada", 4)])
    await store.refund([Charge(FIVE, "ada", 4)])
    assert await remaining(store, ada) == [5], "never more than there was"
    await store.refund([Charge(FIVE, "nobody")])
    assert await remaining(store, Charge(FIVE, "nobody")) == [5]


async def test_what_can_never_work_is_refused_and_costs_nothing(store: Store) -> None:
    for charges in (
        [Charge(FIVE, "ada", 6)],
        [Charge(FIVE, "ada", -1)],
        [Charge(FIVE, "ada"), Charge(FIVE, "ada")],
        [Charge(TEN, "ada"), Charge(FIVE, "ada", 6)],
    ):
        with pytest.raises(InvalidLimit):
            await store.take(charges)
        with pytest.raises(InvalidLimit):
            await store.refund(charges)
    assert await remaining(store, Charge(FIVE, "ada"), Charge(TEN, "ada")) == [5, 10]


async def test_nothing_to_charge_is_allowed(store: Store) -> None:
    assert await allowed(store)
    await store.refund([])


KEYS = ["", " ", "ada", "ada\n", "\x00", "Ada", "a" * 64, "a" * 65, "a" * 65 + "b", "ä", "ä" * 9, "\ud800", "ä" * 10**6]


async def test_keys_are_any_text_and_compared_exactly(store: Store) -> None:
    for _ in range(2):
        for key in KEYS:
            assert await allowed(store, Charge(THREE, key))
    for key in KEYS:
        assert await remaining(store, Charge(THREE, key)) == [1]


async def test_limits_and_keys_do_not_run_into_each_other(store: Store) -> None:
    one, other = parse_limit("1 per day", name="a"), parse_limit("1 per day", name="a:b")
    assert await allowed(store, Charge(one, "b:c"))
    assert await allowed(store, Charge(other, "c"))


async def test_of_many_at_once_as_many_pass_as_the_limit_holds(store: Store) -> None:
    limit = parse_limit("50 per day", name="fifty")
    answers = await asyncio.gather(*(store.take([Charge(limit, "ada"), Charge(TEN, str(n))]) for n in range(120)))
    assert sum(answer.allowed for answer in answers) == 50
    left = [await remaining(store, Charge(TEN, str(n))) for n in range(120)]
    assert left == [[9] if answer.allowed else [10] for answer in answers]


async def test_a_store_can_be_used_again_after_it_was_closed(store: Store) -> None:
    assert await allowed(store, Charge(FIVE, "ada"))
    await store.aclose()
    assert await remaining(store, Charge(FIVE, "ada")) == [4]
