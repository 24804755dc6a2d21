"""What Prometheus is told of verifiers: their status at the moment of the scrape."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest

from jotgate import Verifier
from jotgate.integrations.prometheus import VerifierCollector
from jotgate.testing import TestAuth
from jotgate.verifier.feed import Mode
from tests.conftest import RunningServer, log_in, sign_up

WITHIN_S = 15.0


def test_a_verifier_without_a_network_tells_keys_and_cache_and_nothing_of_a_feed() -> None:
    kit = TestAuth(audience="api")
    registry = CollectorRegistry()
    registry.register(VerifierCollector(kit.verifier))
    labels = {"issuer": kit.verifier.issuer, "audience": "api"}
    token = kit.bearer("ada")["Authorization"].removeprefix("Bearer ")
    for _ in range(3):
        kit.verifier.verify(token)
    assert registry.get_sample_value("jotgate_verifier_ready", labels) == 1
    assert registry.get_sample_value("jotgate_verifier_keys", labels) == 1
    assert registry.get_sample_value("jotgate_verifier_cache_hits_total", labels) == 2
    assert registry.get_sample_value("jotgate_verifier_cache_misses_total", labels) == 1
    assert registry.get_sample_value("jotgate_verifier_cache_entries", labels) == 1
    assert registry.get_sample_value("jotgate_verifier_revocations", labels) is None
    assert token not in generate_latest(registry).decode()


def test_a_verifier_of_a_running_server_tells_how_it_hears_of_revocations(
    running_server: RunningServer, new_email: Callable[[], str]
) -> None:
    email = new_email()
    with (
        Verifier(issuer=running_server.url, audience="api", ca_file=running_server.ca_file) as verifier,
        running_server.client() as client,
    ):
        registry = CollectorRegistry()
        registry.register(VerifierCollector(verifier))
        labels = {"issuer": verifier.issuer, "audience": "api"}
        sign_up(client, email)
        tokens = log_in(client, email)
        assert client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]}).status_code == 204
        verifier.wait_ready(WITHIN_S)
        known = registry.get_sample_value("jotgate_verifier_revocations", labels)
        assert known is not None
        assert known >= 1
        lag = registry.get_sample_value("jotgate_verifier_feed_lag_seconds", labels)
        assert lag is not None
        assert 0 <= lag < WITHIN_S
        modes = [
            sample.labels["mode"]
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "jotgate_verifier_feed_mode" and sample.value == 1
        ]
        assert len(modes) == 1
        assert modes[0] in {"starting", "stream"}


def test_a_scrape_starts_nothing_and_each_verifier_has_its_own_samples() -> None:
    before = set(threading.enumerate())
    first = Verifier(issuer="https://issuer.test", audience="api", on_silence="refuse")
    second = Verifier(issuer="https://issuer.test", audience="other", cache_entries=0)
    registry = CollectorRegistry()
    registry.register(VerifierCollector(first, second))
    generate_latest(registry)
    assert set(threading.enumerate()) == before
    one, other = ({"issuer": "https://issuer.test", "audience": audience} for audience in ("api", "other"))
    modes = [registry.get_sample_value("jotgate_verifier_feed_mode", one | {"mode": mode}) for mode in get_args(Mode)]
    assert modes == [float(mode == "none") for mode in get_args(Mode)]
    assert registry.get_sample_value("jotgate_verifier_ready", one) == 0
    assert registry.get_sample_value("jotgate_verifier_feed_refuses_silence", one) == 1
    assert registry.get_sample_value("jotgate_verifier_feed_refuses_silence", other) == 0
    assert registry.get_sample_value("jotgate_verifier_feed_lag_seconds", one) is None
    assert registry.get_sample_value("jotgate_verifier_cache_hits_total", one) == 0
    assert registry.get_sample_value("jotgate_verifier_cache_hits_total", other) is None
