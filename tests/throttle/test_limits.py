"""Limits are read strictly: a form that is written down, or our own error that says what to write."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jotgate import JotgateError
from jotgate.throttle import Charge, InvalidLimit, Limit, parse_limit
from jotgate.throttle.limits import MAX_UNITS, MAX_WINDOW_S, check_charges


@pytest.mark.parametrize(
    ("text", "quota", "window_s", "burst"),
    [
        ("5 per minute", 5, 60, 5),
        ("100/minute", 100, 60, 100),
        ("100/min", 100, 60, 100),
        ("1/s", 1, 1, 1),
        ("20/10s", 20, 10, 20),
        ("20/10 s", 20, 10, 20),
        ("20 per 10 seconds", 20, 10, 20),
        ("1 per second", 1, 1, 1),
        ("20/10s; burst=5", 20, 10, 5),
        ("20/10s;burst=50", 20, 10, 50),
        ("3/h", 3, 3600, 3),
        ("3 per 2 hours", 3, 7200, 3),
        ("1000/day", 1000, 86_400, 1000),
        ("1000000 per 366 days; burst=1", MAX_UNITS, MAX_WINDOW_S, 1),
    ],
)
def test_each_form_that_is_written_down_is_read(text: str, quota: int, window_s: int, burst: int) -> None:
    limit = parse_limit(text)
    assert (limit.quota, limit.window_s, limit.burst) == (quota, window_s, burst)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5 minute",
        "5 per",
        "5 Per Minute",
        "5/m",
        "5/month",
        "5 per  minute",
        " 5/minute",
        "5/minute ",
        "5/minute\n",
        "5 / minute",
        "-5/minute",
        "+5/minute",
        "05/minute",
        "0/minute",
        "5.0/minute",
        "5e1/minute",
        "5_0/minute",
        "\u0665/minute",
        "5/0s",
        "5/minute burst=2",
        "5/minute; burst=0",
        "5/minute; burst=2; burst=3",
        "5/minute,6/minute",
        "9" * 5000 + "/minute",
    ],
)
def test_any_other_text_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidLimit, match="Write '100/minute'") as refusal:
        parse_limit(text)
    assert refusal.value.code == "invalid_limit"
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("text", ["1000001/minute", "5/367days", "5/minute; burst=1000001", "9999999999/s"])
def test_numbers_out_of_range_are_refused_with_the_range(text: str) -> None:
    with pytest.raises(InvalidLimit, match="whole number from 1 to"):
        parse_limit(text)


@given(st.text() | st.from_regex(r"[0-9]{1,4}(/| per ?)[0-9]{0,3} ?[a-z]{0,8}(; ?burst=[0-9]{0,4})?", fullmatch=True))
@example("5/minute; burst=" + "1" * 100)
def test_a_text_is_a_limit_or_raises_our_error(text: str) -> None:
    try:
        limit = parse_limit(text)
    except InvalidLimit:
        return
    again = parse_limit(f"{limit.quota}/{limit.window_s}s; burst={limit.burst}")
    assert again == limit


def test_a_limit_is_a_value() -> None:
    limit = parse_limit("5 per minute")
    assert limit == parse_limit("5/60s") == Limit(quota=5, window_s=60)
    assert hash(limit) == hash(parse_limit("5/60s"))
    assert limit != parse_limit("5 per minute", name="logins")
    with pytest.raises(AttributeError):
        limit.quota = 6  # type: ignore[misc]


def test_limits_are_named_by_their_numbers_unless_they_have_a_name() -> None:
    assert parse_limit("5 per minute").name == "5/60s"
    assert parse_limit("5 per minute; burst=5").name == "5/60s"
    assert parse_limit("5 per minute; burst=2").name == "5/60s burst 2"
    assert parse_limit("5 per minute", name="logins").name == "logins"


@pytest.mark.parametrize("name", ['"', "\\", "a\nb", "ä", "x" * 65, "\x7f"])
def test_names_are_what_a_header_field_can_carry(name: str) -> None:
    with pytest.raises(InvalidLimit, match="printable ASCII"):
        parse_limit("5 per minute", name=name)
    parse_limit("5 per minute", name="logins (by address) ~!#[]".ljust(64))


@pytest.mark.parametrize(
    ("which", "wrong"),
    [
        *((which, wrong) for which in ("quota", "window_s", "burst") for wrong in (-1, 1.0, True, "5", None)),
        ("quota", 0),
        ("quota", MAX_UNITS + 1),
        ("burst", MAX_UNITS + 1),
        ("window_s", 0),
    ],
)
def test_numbers_of_another_kind_are_refused(which: str, wrong: object) -> None:
    with pytest.raises(InvalidLimit, match=which):
        Limit(**{"quota": 1, "window_s": 1, which: wrong})  # type: ignore[arg-type] # on purpose


def test_a_window_is_a_year_at_most() -> None:
    Limit(quota=1, window_s=MAX_WINDOW_S)
    with pytest.raises(InvalidLimit, match="window_s"):
        Limit(quota=1, window_s=MAX_WINDOW_S + 1)


def test_charges_that_could_never_be_taken_are_refused() -> None:
    limit = parse_limit("5 per minute; burst=3")
    check_charges([Charge(limit, "ada", cost) for cost in (3,)])
    check_charges([])
    for cost in (-1, 4):
        with pytest.raises(InvalidLimit, match="which is 3 here"):
            check_charges([Charge(limit, "ada", cost)])
    check_charges([Charge(limit, "ada"), Charge(limit, "bob"), Charge(parse_limit("5/s"), "ada")])
    with pytest.raises(InvalidLimit, match="charged twice"):
        check_charges([Charge(limit, "ada"), Charge(limit, "bob"), Charge(limit, "ada")])


def test_its_error_is_a_jotgate_error_and_a_value_error() -> None:
    assert issubclass(InvalidLimit, JotgateError)
    assert issubclass(InvalidLimit, ValueError)
