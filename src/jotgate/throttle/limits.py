"""Limits as values: how much is allowed, and what somebody wants to do under it. Knows no clock, store or HTTP."""

import re
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import force_setattr

from jotgate.core.errors import JotgateError

MAX_UNITS: Final = 1_000_000
"""The highest quota and burst: what is used is kept as a float, which is exact to a billionth of a unit up to here."""

MAX_WINDOW_S: Final = 366 * 86_400
MAX_NAME_CHARS: Final = 64

_SECONDS: Final = {
    "s": 1,
    "second": 1,
    "seconds": 1,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "day": 86_400,
    "days": 86_400,
}
_TEXT: Final = re.compile(
    r"(?P<quota>[1-9][0-9]{0,9})(?:/| per )(?:(?P<count>[1-9][0-9]{0,9}) ?)?(?P<unit>[a-z]{1,7})"
    r"(?:; ?burst=(?P<burst>[1-9][0-9]{0,9}))?"
)
# What a String of RFC 9651 section 3.3.3 holds without escapes.
_NAME: Final = re.compile(r"[ !#-\[\]-~]+")


class InvalidLimit(JotgateError, ValueError):
    """A limit, or a use of one, that can never work: a fault of the program, told with what to write instead."""

    code = "invalid_limit"


class Limit(Struct, frozen=True, kw_only=True):
    """`quota` units in `window_s` seconds, spread evenly, of which `burst` may come at once.

    What is used comes back bit by bit, one unit in `window_s / quota` seconds. So a sender who keeps on gets exactly
    `quota` in each window, and nobody ever gets more than `quota + burst` in any stretch of that length.

    Attributes:
        quota: units in a window, 1 to 1,000,000.
        window_s: seconds, 1 to 366 days.
        burst: units that may come at once, 1 to 1,000,000. 0, the default, stands for `quota`.
        name: says in a store and in answers which limit this is; limits of one name share their allowance, so that
            two of a name must agree. Printable ASCII without quotes and backslashes, up to 64 characters.
            By default made of the numbers.

    Raises:
        InvalidLimit: a number out of range, or a name that no header field could carry.
    """

    quota: int
    window_s: int
    burst: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.burst == 0:
            force_setattr(self, "burst", self.quota)
        for what, value, most in (
            ("quota", self.quota, MAX_UNITS),
            ("window_s", self.window_s, MAX_WINDOW_S),
            ("burst", self.burst, MAX_UNITS),
        ):
            if type(value) is not int or not 1 <= value <= most:
                raise InvalidLimit(f"{what} is a whole number from 1 to {most:,}.")
        if not self.name:
            burst = "" if self.burst == self.quota else f" burst {self.burst}"
            force_setattr(self, "name", f"{self.quota}/{self.window_s}s{burst}")
        if len(self.name) > MAX_NAME_CHARS or not _NAME.fullmatch(self.name):
            raise InvalidLimit(
                f"A limit's name is printable ASCII without quotes and backslashes, up to {MAX_NAME_CHARS} characters."
            )


class Charge(Struct, frozen=True):
    """What one request costs under one limit, and whom: `key` says whose allowance it is.

    A key is any text. It is compared exactly, kept as a digest where it is long, and never told to anybody. A cost of 0
    asks how things stand.
    """

    limit: Limit
    key: str
    cost: int = 1


def parse_limit(text: str, *, name: str = "") -> Limit:
    """Read ``5 per minute``, ``100/minute``, ``20/10s`` or ``20 per 10 seconds``, each also with ``; burst=5``.

    The units are s, second, min, minute, h, hour and day, or their plurals. There is no other way to write a limit.

    Raises:
        InvalidLimit: for any other text, and for numbers out of range.
    """
    found = _TEXT.fullmatch(text)
    if found is None or found["unit"] not in _SECONDS:
        raise InvalidLimit(
            f"{text[:64]!r} is not a limit. Write '100/minute', '5 per minute' or '20/10s; burst=5', "
            "with s, min, h, day or whole words as units."
        )
    return Limit(
        quota=int(found["quota"]),
        window_s=int(found["count"] or 1) * _SECONDS[found["unit"]],
        burst=int(found["burst"] or 0),
        name=name,
    )


def check_charges(charges: Sequence[Charge]) -> None:
    """Refuse what can never be allowed, or could not be told apart, before anything is counted.

    Raises:
        InvalidLimit: a cost that is negative or above the limit's burst; one allowance charged twice at once.
    """
    for charge in charges:
        if not 0 <= charge.cost <= charge.limit.burst:
            raise InvalidLimit(f"A cost is from 0 to the burst of its limit, which is {charge.limit.burst} here.")
    if len(charges) > 1 and len({(charge.limit.name, charge.key) for charge in charges}) < len(charges):
        raise InvalidLimit("One allowance is charged twice at once; add the costs up, or name the limits differently.")
