"""What `bench.rotation` counts as a fetch that nothing allowed: a benchmark that excuses everything shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.fetches import BEYOND, FIRST, KEY_EVENT, RETRY, SCHEDULE, UNKNOWN_KEY, Fetch, reasons


def at(*began: float, failed: Sequence[int] = ()) -> list[Fetch]:
    """Fetches of 10 ms."""
    return [Fetch(each, each + 0.01, number not in failed) for number, each in enumerate(began)]


def judge(fetches: list[Fetch], key_events: Sequence[float] = (), strangers: Sequence[float] = ()) -> list[str]:
    found = reasons(fetches, key_events=key_events, strangers=strangers, soonest_s=0.9, cooldown_s=2.0)
    assert found[0] == FIRST
    return [*found[1:]]


def test_the_schedule_allows_one_fetch_after_its_time_and_none_before() -> None:
    assert judge(at(0, 0.92, 1.9)) == [SCHEDULE, SCHEDULE]
    assert judge(at(0, 0.89, 1.0, 1.92)) == [BEYOND, BEYOND, SCHEDULE]


def test_a_failed_fetch_is_tried_again_after_its_delay_and_not_at_once() -> None:
    assert judge(at(0, 0.1, failed=[0])) == [BEYOND]
    assert judge(at(0, 0.3, failed=[0])) == [RETRY]


def test_a_key_event_is_good_for_one_fetch_at_once() -> None:
    assert judge(at(0, 0.5, 0.6), key_events=[0.49]) == [KEY_EVENT, BEYOND]
    assert judge(at(0, 0.5, 0.6), key_events=[0.49, 0.495]) == [KEY_EVENT, KEY_EVENT]
    assert judge(at(0, 0.5), key_events=[0.7]) == [BEYOND]
    assert judge(at(0, 1.0, 1.2), key_events=[0.5]) == [SCHEDULE, BEYOND]


@pytest.mark.parametrize(("second", "reason"), [(1.0, BEYOND), (2.55, UNKNOWN_KEY)])
def test_unknown_keys_are_good_for_one_fetch_in_each_cooldown(second: float, reason: str) -> None:
    fetches = at(0, 0.5, second, second + 0.1)
    strangers = [0.49, second - 0.01, second + 0.05]
    scheduled = [fetches[0], fetches[1], *at(1.9), *fetches[2:]] if second > 2 else fetches
    assert judge(scheduled, strangers=strangers)[-2:] == [reason, BEYOND]
    assert judge(scheduled, strangers=strangers)[0] == UNKNOWN_KEY


def test_a_token_that_was_presented_before_the_last_fetch_or_after_this_one_explains_nothing() -> None:
    assert judge(at(0, 1.0, 1.5), strangers=[0.5]) == [SCHEDULE, BEYOND]
    assert judge(at(0, 0.5), strangers=[0.51]) == [BEYOND]
