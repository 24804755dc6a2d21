"""What a session runs on, in words that its owner recognises: "Firefox on Linux". Pure text in, text out.

A User-Agent (RFC 9110 §10.1.5) says what its sender likes, and is only ever shown to that sender's own account: so a
short table of the common ones serves, and whatever it does not know is named by its product token, or not at all.
"""

import re
from typing import Final

UNKNOWN: Final = "Unknown device"
_LONGEST_READ: Final = 512  # bounds the work; what browsers send is far shorter

# The first that is found counts: many browsers name those that they descend from, too.
_PROGRAMS: Final = (
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_PRODUCT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,31})(?:/|\s|$)", re.ASCII)


def describe_device(user_agent: str | None) -> str:
    """Return a short name for what sent this User-Agent; never more than 60 printable ASCII characters."""
    text = (user_agent or "")[:_LONGEST_READ]
    program = next((name for mark, name in _PROGRAMS if mark in text), None)
    system = next((name for mark, name in _SYSTEMS if mark in text), None)
    if program is None:
        product = _PRODUCT.match(text)
        program = product[1] if product is not None and product[1] != "Mozilla" else None
    if program is None:
        return UNKNOWN if system is None else f"Unknown program on {system}"
    return program if system is None else f"{program} on {system}"
