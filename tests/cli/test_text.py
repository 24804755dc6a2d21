"""Text for a terminal: whatever comes from a token or a database, it cannot steer the screen."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.cli.text import json_line, printable, relative, utc

NOW = 1_795_000_000
STEERING = [
    "\x1b[2J",
    "\x07",
    "\r",
    "\n",
    "\x7f",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u2028",
    "\ud800",
    "\U000e0001",
]


@pytest.mark.parametrize("text", STEERING, ids=lambda text: ascii(text).strip("'"))
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str) -> None:
    shown = printable(f"a{text}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    assert json_line({"claim": f"a{text}b"}).isprintable()


@given(st.text(st.characters()))
def test_no_text_reaches_the_terminal_with_a_control_or_format_character(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in shown)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_letters_of_every_script_are_shown_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_json_stays_json() -> None:
    assert json.loads(json_line({"name": "Zoë", "list": [1, True, None]})) == {"name": "Zoë", "list": [1, True, None]}


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (0, "now"),
        (1, "in 1 s"),
        (-59, "59 s ago"),
        (252, "in 4 min 12 s"),
        (240, "in 4 min"),
        (-3600, "1 h ago"),
        (-3601, "1 h ago"),
        (90_000, "in 1 d 1 h"),
        (-86_400 * 400, "400 d ago"),
    ],
)
def test_a_moment_is_told_in_its_two_largest_units(offset: int, words: str) -> None:
    assert relative(NOW + offset, NOW) == words


def test_a_time_is_told_in_utc() -> None:
    assert utc(0) == "1970-01-01 00:00:00 UTC"


def test_a_time_beyond_the_calendar_is_an_error_of_one_kind() -> None:
    for at in (2**53, -(2**62), 10**30):
        with pytest.raises(ValueError, match=r"calendar|year"):
            utc(at)
