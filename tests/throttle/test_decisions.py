"""The decision itself, against a model in exact fractions, whatever comes when, and whatever the clock does."""

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.throttle import Charge, Decision, Limit, parse_limit
from jotgate.throttle.decisions import TOLERANCE, Used, decide, drain, give_back

LIMITS = st.builds(
    Limit,
    quota=st.integers(1, 20) | st.integers(1, 1_000_000),
    window_s=st.integers(1, 20) | st.integers(1, 86_400),
    burst=st.integers(1, 20) | st.integers(1, 1_000_000),
)
# Milliseconds between two requests, and what each costs of the burst.
STEPS = st.lists(st.tuples(st.integers(0, 3) | st.integers(0, 100_000), st.integers(0, 20)), max_size=60)


def take(limit: Limit, used: Used, cost: int, now: float) -> tuple[Decision, Used]:
    decision, (after,) = decide([Charge(limit, "ada", cost)], [used], now)
    return decision, after


class Model:
    """The same in fractions: what was used drains at the limit's rate; a request fits if the burst then holds it."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.units, self.at = Fraction(0), Fraction(0)

    def drain(self, now: Fraction) -> None:
        gone = (now - self.at) * self.limit.quota / self.limit.window_s
        self.units, self.at = max(self.units - gone, Fraction(0)), now

    def take(self, cost: int, now: Fraction) -> Fraction:
        """Take it if it fits; by how much it did (or did not, below 0)."""
        self.drain(now)
        room = self.limit.burst - self.units - cost
        if room >= 0:
            self.units += cost
        return room


def follow(limit: Limit, steps: Sequence[tuple[int, int]], refunds: Sequence[int]) -> list[tuple[Fraction, int]]:
    """Do the steps with both, and compare; what passed, and when."""
    model, used, now = Model(limit), (0.0, 0.0), Fraction(0)
    passed: list[tuple[Fraction, int]] = []
    for number, (pause_ms, wanted) in enumerate(steps):
        now += Fraction(pause_ms, 1000)
        cost = min(wanted, limit.burst)
        before = model.units, model.at
        decision, after = take(limit, used, cost, float(now))
        room = model.take(cost, now)
        if abs(room) < Fraction(1, 100_000) and decision.allowed != (room >= 0):
            model.units, model.at = before  # so close that either is right; the model goes the same way
            model.drain(now)
            model.units += cost if decision.allowed else 0
        else:
            assert decision.allowed == (room >= 0)
        used = after
        if decision.allowed:
            passed.append((now, cost))
        (standing,) = decision.standings
        assert used[0] == pytest.approx(float(model.units), abs=1e-4)
        assert standing.remaining == pytest.approx(math.floor(max(limit.burst - model.units, Fraction(0))), abs=1)
        unit_s = limit.window_s / limit.quota
        assert standing.reset_after_s == pytest.approx(float(model.units) * unit_s, abs=1e-4 * unit_s)
        if number in refunds:
            used = give_back(Charge(limit, "ada", cost), used, float(now))
            model.units = max(model.units - cost, Fraction(0))
    return passed


@given(LIMITS, STEPS, st.lists(st.integers(0, 60)))
def test_it_decides_as_the_exact_model_does(limit: Limit, steps: list[tuple[int, int]], refunds: list[int]) -> None:
    follow(limit, steps, refunds)


@given(LIMITS, STEPS)
def test_no_window_ever_has_more_than_quota_and_burst(limit: Limit, steps: list[tuple[int, int]]) -> None:
    passed = follow(limit, steps, [])
    for index, (start, _) in enumerate(passed):
        inside = sum(cost for at, cost in passed[index:] if at - start <= limit.window_s)
        assert inside <= limit.quota + limit.burst


@given(LIMITS, STEPS)
def test_who_comes_back_when_told_passes_and_who_comes_before_does_not(
    limit: Limit, steps: list[tuple[int, int]]
) -> None:
    used, now = (0.0, 0.0), 0.0
    for pause_ms, wanted in steps:
        now += pause_ms / 1000
        cost = min(wanted, limit.burst)
        decision, used = take(limit, used, cost, now)
        if not decision.allowed:
            wait_s = decision.retry_after_s
            assert wait_s > 0
            assert take(limit, used, cost, now + wait_s * (1 + 1e-9) + 1e-6)[0].allowed
            unit_s = limit.window_s / limit.quota
            if wait_s > unit_s * TOLERANCE * 100 and wait_s > 1e-3:
                assert not take(limit, used, cost, now + wait_s * 0.99 - unit_s * TOLERANCE)[0].allowed
        else:
            assert decision.retry_after_s == 0
            reset_s = decision.standings[0].reset_after_s
            assert take(limit, used, limit.burst, now + reset_s * (1 + 1e-9) + 1e-6)[0].allowed


@given(LIMITS, st.lists(st.integers(-1000, 1000), max_size=60))
def test_a_clock_that_goes_to_and_fro_gives_nothing_away(limit: Limit, jumps: list[int]) -> None:
    """Whatever the clock reads, within one window: no more passes than between its least and its greatest time."""
    times = [jump / 1000 * limit.window_s * 0.49 for jump in jumps]
    used, passed = (0.0, min(times, default=0.0)), 0
    for now in times:
        decision, used = take(limit, used, 1, now)
        passed += decision.allowed
    span_s = max(times, default=0.0) - min(times, default=0.0)
    assert passed <= limit.burst + span_s * limit.quota / limit.window_s + 1e-3


@given(LIMITS, st.floats(1, 1e12))
def test_a_clock_that_is_set_back_for_good_locks_nobody_out_for_longer_than_a_window(
    limit: Limit, back_s: float
) -> None:
    now = 1e9
    _, used = take(limit, (0.0, now), limit.burst, now)
    refused, used = take(limit, used, 1, now - back_s)
    if not refused.allowed:
        assert refused.retry_after_s <= limit.window_s + limit.window_s / limit.quota + 1e-6
    assert take(limit, used, 1, now - back_s + limit.window_s * 2 + limit.window_s / limit.quota + 1)[0].allowed
    assert drain(limit, used, now - back_s)[1] <= now - back_s + limit.window_s


@given(st.lists(st.tuples(LIMITS, st.integers(0, 1_000_000), st.floats(0, 1_000_000)), min_size=1, max_size=5))
def test_of_several_limits_all_are_charged_or_none(asked: list[tuple[Limit, int, float]]) -> None:
    charges = [Charge(limit, "ada", min(cost, limit.burst)) for limit, cost, _ in asked]
    before = [(min(units, float(limit.burst)), 0.0) for limit, _, units in asked]
    decision, after = decide(charges, before, 0.0)
    alone = [decide([charge], [used], 0.0)[0].allowed for charge, used in zip(charges, before, strict=True)]
    assert decision.allowed == all(alone)
    assert [standing.allowed for standing in decision.standings] == alone
    for charge, (old, _), (new, _) in zip(charges, before, after, strict=True):
        assert new == (old + charge.cost if decision.allowed else old)
    assert decision.violated == tuple(
        charge.limit.name for charge, allowed in zip(charges, alone, strict=True) if not allowed
    )


def test_what_five_per_minute_means() -> None:
    limit, used = parse_limit("5 per minute"), (0.0, 0.0)
    remaining = []
    for _ in range(5):
        decision, used = take(limit, used, 1, 0.0)
        remaining.append(decision.standings[0].remaining)
    assert remaining == [4, 3, 2, 1, 0]
    decision, used = take(limit, used, 1, 0.0)
    assert (decision.allowed, decision.retry_after_s) == (False, 12.0)
    assert decision.standings[0].reset_after_s == 60.0
    # From then on one comes back every twelve seconds.
    allowed = []
    for now in (11.9, 12.0, 12.1, 24.0):
        decision, used = take(limit, used, 1, now)
        allowed.append(decision.allowed)
    assert allowed == [False, True, False, True]


def test_giving_back_makes_room_and_never_more_than_there_was() -> None:
    limit = parse_limit("5 per minute")
    _, used = take(limit, (0.0, 0.0), 5, 0.0)
    used = give_back(Charge(limit, "ada", 2), used, 0.0)
    assert used == (3.0, 0.0)
    for _ in range(3):
        used = give_back(Charge(limit, "ada", 5), used, 0.0)
    assert used == (0.0, 0.0)
    assert not take(limit, take(limit, used, 5, 0.0)[1], 1, 0.0)[0].allowed
