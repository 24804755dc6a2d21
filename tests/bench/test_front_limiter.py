"""What `bench.front_limiter` promises: every side decides what it is measured at, and a flood shows what it should."""

import importlib.util

import pytest

from bench import tokens_install
from bench.front_limiter import IN_MEMORY, Side, flood, limits_sides, measure, ours, ours_without_a_loop, throttled_side
from bench.report import Report
from jotgate.throttle import MemoryStore


def all_sides() -> list[Side]:
    tokens_install.add_to_path()
    sides = [ours("jotgate", MemoryStore()), ours_without_a_loop(MemoryStore())]
    if importlib.util.find_spec("limits") is not None:
        sides += limits_sides(None)
    if importlib.util.find_spec("throttled") is not None:
        sides.append(throttled_side(None))
    return sides


async def test_each_side_allows_and_refuses_as_its_limits_say() -> None:
    for side in all_sides():
        for decide, allowed in ((side.one, 10), (side.none, 1), (side.three, 10), (side.five, 5)):
            assert sum([await decide("ada") for _ in range(10)]) == allowed, side.name


async def test_limits_that_are_never_reached_are_not_reached_in_a_round() -> None:
    side = ours("jotgate", MemoryStore())
    assert all([await side.one("ada") for _ in range(2 * IN_MEMORY)])


async def test_all_sides_take_turns_and_have_a_row_for_each_thing() -> None:
    report, sides = Report("front_limiter", ()), [ours(name, MemoryStore()) for name in ("one", "other")]
    took = await measure(report, "memory", sides, count=20, rounds=3)
    assert {name: len(samples) for name, samples in took.items()} == {"one": 3, "other": 3}
    assert len(report.rows) == 4 * 2
    assert all(row.value > 0 and row.n == 3 for row in report.rows)


@pytest.mark.parametrize("entries", [8, 1_000])
async def test_a_flood_shows_memory_and_whom_it_freed(entries: int) -> None:
    report = Report("front_limiter", ())
    await flood(report, ours("jotgate", MemoryStore(max_entries=entries)), 500)
    memory, freed = report.rows
    assert memory.value > 0
    assert freed.value == 0
