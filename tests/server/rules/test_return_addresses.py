"""Where a browser may be sent after a login."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server.rules.return_addresses import is_origin, return_address

OWN = "https://auth.example.com:8443"
SHOP = "https://shop.example.com"

GOOD = {
    f"{OWN}": OWN,
    f"{OWN}/account": f"{OWN}/account",
    "/": f"{OWN}/",
    "/account?tab=1#devices": f"{OWN}/account?tab=1#devices",
    f"{SHOP}": SHOP,
    f"{SHOP}/cart?item=1&item=2#top": f"{SHOP}/cart?item=1&item=2#top",
    f"{SHOP}?a@b": f"{SHOP}?a@b",
}
BAD = [
    "",
    "account",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    " /account",
    "/a b",
    "/ä",
    "/a\r\nSet-Cookie: a=b",
    "/a\x00",
    "javascript:alert(1)",
    "data:text/html,x",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https://evil.example",
    "http://shop.example.com/",
    "HTTPS://shop.example.com/",
    "https://SHOP.example.com/",
    f"{SHOP}.evil.example/",
    f"{SHOP}@evil.example/",
    f"{SHOP}:443@evil.example/",
    f"{SHOP}:443/",
    f"{SHOP}:8443/",
    f"{SHOP}\\@evil.example/",
    f"{SHOP}\\.evil.example/",
    f"{SHOP}%2eevil.example/",
    f"{SHOP}./",
    f"https://ada@{SHOP[8:]}/",
    f"https://evil.example#{SHOP}",
    f"https://evil.example/{SHOP}",
    f"https://evil.example?{SHOP}",
    f"https://evil.example\\{SHOP[8:]}",
    "https://auth.example.com/",
    f'/"><script>{1}',
    "/" + "a" * 2_000,
]


@pytest.mark.parametrize("text", GOOD)
def test_pages_of_the_issuer_and_of_its_front_ends_are_gone_back_to(text: str) -> None:
    assert return_address(text, own=OWN, others=(SHOP,)) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_nobody_is_sent_elsewhere(text: str) -> None:
    assert return_address(text, own=OWN, others=(SHOP,)) is None


PIECES = ["/", "\\", "@", ":", "#", "?", ".", "https:", "//", "evil", SHOP, OWN, " "]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_whatever_is_typed_the_browser_ends_up_at_an_origin_of_the_list(text: str) -> None:
    found = return_address(text, own=OWN, others=(SHOP,))
    if found is not None:
        parts = urlsplit(found)
        assert f"{parts.scheme}://{parts.netloc}" in (OWN, SHOP)
        assert "\\" not in found
        assert found.isascii()
        assert found.isprintable()


@pytest.mark.parametrize("text", [OWN, SHOP, "https://[::1]:8443", "https://localhost"])
def test_an_origin_may_stand_in_a_policy(text: str) -> None:
    assert is_origin(text)


@pytest.mark.parametrize(
    "text", ["", "https://a;b", "https://a b", "https://a,b", f"{SHOP}/", "https://bücher.example", "*"]
)
def test_what_would_mean_another_thing_in_a_policy_is_no_origin(text: str) -> None:
    assert not is_origin(text)
