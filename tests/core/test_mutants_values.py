"""Small values of the core whose faults no other test would show: found by mutation testing."""

from __future__ import annotations

from jotgate.core.forwarded import TrustedProxies
from jotgate.core.revocations import Revocations


def test_trusted_proxies_say_whether_anybody_is_trusted() -> None:
    assert not TrustedProxies()
    assert not TrustedProxies.parse(0)
    assert not TrustedProxies.parse([])
    assert TrustedProxies.parse(1)
    assert TrustedProxies.parse(["10.0.0.0/8"])


def test_a_view_of_revocations_says_what_its_owner_adds_later() -> None:
    sessions = {"first": 10}
    view = Revocations.view(sessions)
    sessions["second"] = 20
    assert dict(view.sessions) == {"first": 10, "second": 20}
    assert len(view) == 2
