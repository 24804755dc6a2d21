"""Text for a terminal: nothing that came from outside may steer it. It knows no command."""

import datetime as dt
import importlib.metadata
import json
import sys
from typing import Any, Final

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def printable(text: str) -> str:
    """Return the text with everything that a terminal would act on, or hide, as a visible escape.

    That is every character of Unicode's categories Other and Separator save the space: ESC and its kin, the C1
    controls, and the marks that reverse the reading direction.
    """
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_line(value: object) -> str:
    """Return the value as JSON on one line that a terminal shows as it stands."""
    return printable(json.dumps(value, ensure_ascii=False, default=str))


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write the value to standard output for a program: ASCII only, so no escape sequence survives either."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def version() -> str:
    """Return jotgate's version; "(not installed)" when it runs from a source tree."""
    try:
        return importlib.metadata.version("jotgate")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def utc(at: int) -> str:
    """Return Unix seconds as a date and time in UTC; raises ValueError beyond the calendar."""
    try:
        return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError) as error:
        raise ValueError("outside the calendar") from error


def relative(at: int, now: int) -> str:
    """Return how far a moment lies from now, in its two largest units: ``in 4 min 12 s``, ``3 h ago``."""
    if at == now:
        return "now"
    seconds = abs(at - now)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    words = " ".join(part for part in parts if not part.startswith("0 "))
    return f"in {words}" if at > now else f"{words} ago"
