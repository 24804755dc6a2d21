"""Small values of the core whose faults no other test would show: found by mutation testing."""

from __future__ import annotations

from jotgate.core.forwarded import TrustedProxies


def test_trusted_proxies_say_whether_anybody_is_trusted() -> None:
    assert not TrustedProxies()
    assert not TrustedProxies.parse(0)
    assert not TrustedProxies.parse([])
    assert TrustedProxies.parse(1)
    assert TrustedProxies.parse(["10.0.0.0/8"])
