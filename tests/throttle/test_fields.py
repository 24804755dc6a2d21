"""What answers say, read back by an independent parser of structured fields."""

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.throttle import (
    Charge,
    Decision,
    Limit,
    header_fields,
    limit_field,
    parse_limit,
    policy_field,
    problem,
    retry_after_field,
)
from jotgate.throttle.decisions import decide

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\')
NAMES = st.text(PRINTABLE, min_size=1, max_size=64)
LIMITS = st.builds(
    Limit,
    quota=st.integers(1, 1_000_000),
    window_s=st.integers(1, 1_000_000),
    burst=st.integers(1, 1_000_000),
    name=NAMES,
)


def items(field: str) -> list[tuple[str, dict[str, Any]]]:
    """The items of a List (RFC 9651), with their parameters."""
    parsed: Any = http_sf.parse(field.encode(), tltype="list")
    return [(name, dict(parameters)) for name, parameters in parsed]


def decided(*asked: tuple[Limit, int, float]) -> Decision:
    """A decision about (limit, cost, units used before)."""
    charges = [Charge(limit, "ada", cost) for limit, cost, _ in asked]
    return decide(charges, [(units, 0.0) for *_, units in asked], 0.0)[0]


PER_MINUTE = parse_limit("100/minute", name="minutely")
PER_DAY = parse_limit("1000/day", name="daily")
LOGIN = parse_limit("5 per minute", name="login")


def test_policies_are_told_as_the_draft_shows_them() -> None:
    assert policy_field([LOGIN]) == '"login";q=5;w=60'
    assert policy_field([PER_MINUTE, PER_DAY]) == '"minutely";q=100;w=60, "daily";q=1000;w=86400'
    assert policy_field([parse_limit("20/10s; burst=5", name="b")]) == '"b";q=20;w=10;jotgate-burst=5'


def test_how_somebody_stands_is_told_as_the_draft_shows_it() -> None:
    assert limit_field(decided((LOGIN, 1, 0))) == '"login";r=4;t=48'
    assert limit_field(decided((LOGIN, 1, 4))) == '"login";r=0;t=12'
    assert limit_field(decided((PER_MINUTE, 1, 49), (PER_DAY, 1, 0))) == '"minutely";r=50;t=30, "daily";r=999;t=86314'


def test_all_fields_of_an_answer() -> None:
    assert header_fields(decided((LOGIN, 1, 0))) == {
        "ratelimit-policy": '"login";q=5;w=60',
        "ratelimit": '"login";r=4;t=48',
    }
    assert header_fields(decided((LOGIN, 1, 5), (PER_DAY, 1, 0))) == {
        "ratelimit-policy": '"login";q=5;w=60, "daily";q=1000;w=86400',
        "ratelimit": '"login";r=0;t=12',
        "retry-after": "12",
    }


def test_a_refusal_names_the_limits_that_refused_and_when_to_come_back() -> None:
    refused = decided((LOGIN, 1, 5), (PER_DAY, 1, 0))
    assert limit_field(refused) == '"login";r=0;t=12'
    assert retry_after_field(refused) == "12"
    assert problem(refused) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "code": "quota_exceeded",
        "detail": "Too many requests. Try again in 12 seconds.",
        "violated-policies": ["login"],
    }
    assert problem(decided((PER_MINUTE, 1, 100)))["detail"] == "Too many requests. Try again in 1 second."
    both = decided((LOGIN, 1, 5), (PER_DAY, 1, 1000))
    assert problem(both)["violated-policies"] == ["login", "daily"]
    assert retry_after_field(both) == "87"


@given(st.lists(LIMITS, min_size=1, max_size=4))
def test_policies_are_lists_of_strings_with_integers(limits: list[Limit]) -> None:
    assert [(name, parameters["q"], parameters["w"]) for name, parameters in items(policy_field(limits))] == [
        (limit.name, limit.quota, limit.window_s) for limit in limits
    ]


@given(st.lists(st.tuples(LIMITS, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_what_is_told_is_true(asked: list[tuple[Limit, float, float]]) -> None:
    decision = decided(*((limit, round(cost * limit.burst), used * limit.burst) for limit, cost, used in asked))
    told = items(limit_field(decision))
    if decision.allowed:
        assert [name for name, _ in told] == [limit.name for limit, *_ in asked]
        for (limit, *_), (_, parameters) in zip(asked, told, strict=True):
            # Section 6: the quotient of the two promises no more than the limit's own rate.
            assert parameters["r"] / parameters["t"] <= limit.quota / limit.window_s * (1 + 1e-9)
    else:
        assert tuple(name for name, _ in told) == decision.violated
        # Section 6: Retry-After is not earlier than the end of any effective window, and nobody comes too early.
        assert int(retry_after_field(decision)) >= max(parameters["t"] for _, parameters in told)
        assert int(retry_after_field(decision)) >= decision.retry_after_s
    for _, parameters in told:
        assert set(parameters) == {"r", "t"}
        assert all(type(value) is int for value in parameters.values())
        assert parameters["r"] >= 0
        assert parameters["t"] > 0


@pytest.mark.parametrize("used", [4.0, 4.5, 4.999])
def test_where_nothing_remains_the_window_ends_with_the_next_unit(used: float) -> None:
    ((_, parameters),) = items(limit_field(decided((LOGIN, 0, used))))
    if parameters["r"] == 0:
        assert (5 - used) * 12 <= 12
        assert parameters["t"] - 1 < (used - 4) * 12 <= parameters["t"]
