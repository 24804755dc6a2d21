"""One sender, one key: IPv4 as it is, IPv6 by /64, and nothing that is no address gets an allowance of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.throttle import address_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:DB8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::1:c000:201", "64:ff9b::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("", "unknown"),
        ("testclient", "unknown"),
        ("192.0.2.256", "unknown"),
        ("192.0.2.1:80", "unknown"),
    ],
)
def test_keys_of_addresses(text: str | None, key: str) -> None:
    assert address_key(text) == key


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_network_have_one_key(network: int, one: int, other: int) -> None:
    def text(host: int) -> str:
        groups = f"{network:016x}{host:016x}"
        return ":".join(groups[start : start + 4] for start in range(0, 32, 4))

    if network not in (0, 0x64FF9B << 32):  # these hold IPv4 addresses, too
        assert address_key(text(one)) == address_key(text(other)) != "unknown"


@given(st.text())
def test_any_text_has_a_key(text: str) -> None:
    assert len(address_key(text)) <= 64
