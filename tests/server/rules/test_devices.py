"""A User-Agent becomes a few words that its owner recognises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server.rules.devices import describe_device

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/139.0.0.0 Safari/537.36"
SAFARI = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/18.5 Safari/605.1.15"
IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {WEBKIT} Version/18.5 Mobile/15E148 Safari/604.1"
IPAD = f"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) {WEBKIT} CriOS/139.0 Mobile/15E148 Safari/604.1"
SAMSUNG = f"Mozilla/5.0 (Linux; Android 15; SM-S921B) {WEBKIT} SamsungBrowser/28.0 Chrome/130.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (FIREFOX, "Firefox on Linux"),
        (CHROME, "Chrome on Windows"),
        (CHROME + " Edg/139.0.0.0", "Edge on Windows"),
        (CHROME + " OPR/120.0.0.0", "Opera on Windows"),
        (SAFARI, "Safari on macOS"),
        (IPHONE, "Safari on iPhone"),
        (IPAD, "Chrome on iPad"),
        (SAMSUNG, "Samsung Internet on Android"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/139.0 Safari/537.36", "Chrome on ChromeOS"),
        (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/139.0 Safari/537.36", "Chrome on Linux"),
        ("curl/8.5.0", "curl"),
        ("python-httpx/0.28", "python-httpx"),
        ("ShopApp/2.1 (iPhone; iOS 18)", "ShopApp on iPhone"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Unknown program on Linux"),
        ("Mozilla/5.0", "Unknown device"),
        ("<script>alert(1)</script>", "Unknown device"),
        ("x" * 33, "Unknown device"),
        ("", "Unknown device"),
        (None, "Unknown device"),
    ],
)
def test_what_is_common_gets_its_name_and_what_is_not_gets_none(user_agent: str | None, device: str) -> None:
    assert describe_device(user_agent) == device


@given(
    st.text() | st.lists(st.sampled_from(["Firefox/", "Linux", "\x1b[2J", "é", " ", "Edg/", "Mozilla"])).map("".join)
)
def test_whatever_is_sent_becomes_a_short_printable_text(user_agent: str) -> None:
    device = describe_device(user_agent)
    assert 0 < len(device) <= 60
    assert device.isascii()
    assert device.isprintable()


def test_what_comes_after_512_characters_is_not_read() -> None:
    assert describe_device(" " * 512 + "Firefox/1 Linux") == "Unknown device"
