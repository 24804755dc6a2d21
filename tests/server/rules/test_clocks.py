"""A wall clock is believed while it goes as the steady one does, or once it has been what it is for long enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server.rules.clocks import TOLERANCE_S, ClockWatch

NOW = 1_800_000_000
HOUR_S = 3_600


def watch() -> ClockWatch:
    return ClockWatch(NOW, 0.0, trust_after_s=HOUR_S)


def test_a_clock_that_goes_well_is_believed_whenever_it_is_asked() -> None:
    clock = watch()
    for at in (0, 1, 86_400, 86_400_000):
        assert clock.believes(NOW + at, at + 0.4)


@pytest.mark.parametrize("by", [-(10**9), -86_400, -64, 64, 86_400, 10**9])
def test_a_jump_counts_once_it_has_lasted(by: int) -> None:
    clock = watch()
    assert not clock.believes(NOW + by, 0.0)
    assert not clock.believes(NOW + by + HOUR_S - 1, HOUR_S - 1)
    assert clock.believes(NOW + by + HOUR_S, HOUR_S)
    assert clock.believes(NOW + by + HOUR_S + 1, HOUR_S + 1)


def test_a_clock_has_lasted_once_it_has_gone_on_from_where_it_is_for_long_enough() -> None:
    clock = watch()
    assert clock.believes(NOW + HOUR_S - 1, HOUR_S - 1)
    assert not clock.has_lasted(HOUR_S - 1)
    assert clock.has_lasted(HOUR_S)
    assert not clock.believes(NOW + 86_400 + HOUR_S, HOUR_S)
    assert not clock.has_lasted(2 * HOUR_S - 1)
    assert clock.believes(NOW + 86_400 + 2 * HOUR_S, 2 * HOUR_S)
    assert clock.has_lasted(2 * HOUR_S)


def test_a_clock_that_is_put_right_again_is_believed_at_once_and_nothing_was_kept_of_the_jump() -> None:
    clock = watch()
    assert not clock.believes(NOW + 86_400, 0)
    assert clock.believes(NOW + 600, 600)
    assert not clock.believes(NOW + 86_400 + HOUR_S, HOUR_S)
    assert not clock.believes(NOW + 86_400 + HOUR_S + 1_800, HOUR_S + 1_800)


def test_another_jump_begins_the_wait_anew() -> None:
    clock = watch()
    assert not clock.believes(NOW + 86_400, 0)
    assert not clock.believes(NOW + 2 * 86_400 + 1_800, 1_800)
    assert not clock.believes(NOW + 2 * 86_400 + HOUR_S, HOUR_S)
    assert clock.believes(NOW + 2 * 86_400 + HOUR_S + 1_800, HOUR_S + 1_800)


def test_a_clock_that_loses_a_second_a_minute_is_not_believed_for_ever_and_one_that_is_slewed_is() -> None:
    broken, slewed = watch(), watch()
    believed = [broken.believes(NOW + at - at // 60, at) for at in range(0, 2 * HOUR_S, 60)]
    assert not all(believed)
    assert all(slewed.believes(NOW + at - at // 2_000, at) for at in range(0, 1_000_000, 1_000))


@given(st.lists(st.tuples(st.integers(-TOLERANCE_S, TOLERANCE_S), st.integers(0, 30)), max_size=40))
def test_many_small_jumps_do_not_add_up_to_a_large_one_that_is_believed(jumps: list[tuple[int, int]]) -> None:
    clock, wall, steady = watch(), NOW, 0
    for by, after in jumps:
        wall, steady = wall + by + after, steady + after
        if clock.believes(wall, steady):
            assert abs(wall - NOW - steady) <= TOLERANCE_S + steady / 1_000
