"""When keys are fetched again, decided over a clock that the test moves."""

from __future__ import annotations

import pytest

from jotgate.verifier.discovery import parse_max_age
from jotgate.verifier.schedule import LONGEST_RETRY_S, MIN_REFRESH_S, Schedule


def schedule(*, jitter: float = 0.0, refresh_s: float = 300, cooldown_s: float = 30) -> Schedule:
    return Schedule(refresh_s=refresh_s, cooldown_s=cooldown_s, jitter=lambda: jitter)


@pytest.mark.parametrize(
    ("max_age_s", "expected"),
    [(None, 300), (0, MIN_REFRESH_S), (10, MIN_REFRESH_S), (120, 120), (300, 300), (86_400, 300)],
)
def test_the_publishers_max_age_shortens_the_refresh_within_bounds(max_age_s: int | None, expected: float) -> None:
    planned = schedule()
    planned.succeeded(1000, max_age_s)
    assert planned.due_at == 1000 + expected


def test_a_short_refresh_that_was_configured_is_not_lengthened_by_the_lower_bound() -> None:
    planned = schedule(refresh_s=5)
    planned.succeeded(1000, 0)
    assert planned.due_at == 1005


def test_refreshes_of_many_processes_spread_over_a_tenth_of_the_time() -> None:
    planned = schedule(jitter=0.999)
    planned.succeeded(1000, None)
    assert 1270 < planned.due_at < 1271


def test_failures_back_off_to_a_bound_and_a_success_begins_anew() -> None:
    planned = schedule()
    delays = []
    for _ in range(40):
        planned.failed(0)
        delays.append(planned.due_at)
    assert delays[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert set(delays[7:]) == {LONGEST_RETRY_S}
    planned.succeeded(0, None)
    planned.failed(0)
    assert planned.due_at == 0.5


def test_a_back_off_is_never_longer_than_the_ordinary_refresh() -> None:
    planned = schedule(refresh_s=3)
    for _ in range(10):
        planned.failed(0)
    assert planned.due_at == 3


def test_retries_of_many_processes_spread_over_half_of_the_delay() -> None:
    planned = schedule(jitter=0.999)
    planned.failed(100)
    assert 100.25 < planned.due_at < 100.26


def test_unknown_keys_may_ask_once_in_each_cooldown() -> None:
    planned = schedule()
    planned.succeeded(0, None)
    assert planned.ask(1)
    assert planned.due_at == 1
    assert not planned.ask(1)
    assert not planned.ask(30.9)
    assert planned.ask(31)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("max-age=60", 60),
        ("public, MAX-AGE=60, must-revalidate", 60),
        ('max-age="60"', 60),
        ("no-store", None),
        ("", None),
        ("max-age=-1", None),
        ("max-age=1e9", None),
        ("max-age=99999999999999999999", None),
        ("max-age=٦٠", None),
        ("s-maxage=60", None),
        ("max-age", None),
    ],
)
def test_only_a_plain_max_age_counts(header: str, seconds: int | None) -> None:
    assert parse_max_age(header) == seconds
