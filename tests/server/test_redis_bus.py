"""The bell between replicas, on a real Redis: heard by all, missed by nobody when Redis goes and comes."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from jotgate.server.redis_bus import RedisBus
from jotgate.server.secret import Secret
from jotgate.server.tls import LocalCertificate, ensure_local_certificate
from tests.conftest import Need
from tests.services import PASSWORD, RedisServer, run_redis

WITHIN_S = 20.0


class Ear:
    """What one replica heard."""

    def __init__(self, url: str) -> None:
        self.times = 0
        self._changed = threading.Condition()
        self.bus = RedisBus(Secret(url), self._wake)

    def _wake(self) -> None:
        with self._changed:
            self.times += 1
            self._changed.notify_all()

    def wait_for(self, times: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.times >= times, WITHIN_S), f"heard {self.times} of {times}"


@pytest.fixture
def listen() -> Iterator[Callable[[str], Ear]]:
    ears: list[Ear] = []

    def make(url: str) -> Ear:
        ear = Ear(url)
        ears.append(ear)
        ear.bus.start()
        return ear

    yield make
    for ear in ears:
        ear.bus.close()
        assert ear.bus.status == "stopped"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_replica_hears_and_so_does_the_one_that_rings(
    redis_server: RedisServer, listen: Callable[[str], Ear]
) -> None:
    ears = [listen(redis_server.url) for _ in range(3)]
    for ear in ears:
        ear.wait_for(1)  # connected
    heard = [ear.times for ear in ears]
    ears[0].bus.tell()
    for ear, before in zip(ears, heard, strict=True):
        ear.wait_for(before + 1)
        assert ear.bus.status == "connected"


def test_deployments_on_other_databases_of_one_redis_do_not_wake_each_other(
    redis_server: RedisServer, listen: Callable[[str], Ear]
) -> None:
    here, elsewhere = listen(redis_server.url), listen(redis_server.url.replace("/0", "/1"))
    for ear in (here, elsewhere):
        ear.wait_for(1)
    for n in range(5):
        here.bus.tell()
        here.wait_for(2 + n)
    assert elsewhere.times == 1


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server's log says of Redis."""
    told = [json.loads(record.getMessage())["event"] for record in caplog.records if record.name == "jotgate"]
    return [event for event in told if event.startswith("redis_")]


def test_redis_goes_and_comes_and_is_told_once_each(
    own_redis: RedisServer, listen: Callable[[str], Ear], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ear = listen(own_redis.url)
    ear.wait_for(1)
    own_redis.stop()
    wait_until(lambda: events(caplog) == ["redis_away"])
    assert ear.bus.status == "away"
    before = ear.times
    for _ in range(100):
        ear.bus.tell()  # into the void: neither blocks nor raises
    own_redis.start()
    ear.wait_for(before + 2)  # once for the connection, once for what was rung meanwhile
    assert events(caplog) == ["redis_away", "redis_back"]
    own_redis.restart()
    wait_until(lambda: len(events(caplog)) == 4)
    assert events(caplog) == ["redis_away", "redis_back"] * 2
    assert PASSWORD not in caplog.text


def test_a_redis_that_is_not_there_at_the_start_is_found_when_it_comes(
    own_redis: RedisServer, listen: Callable[[str], Ear]
) -> None:
    own_redis.stop()
    ear = listen(own_redis.url)
    own_redis.start()
    ear.wait_for(1)
    assert ear.bus.status == "connected"


def test_a_wrong_password_is_away_and_never_logged(
    redis_server: RedisServer, listen: Callable[[str], Ear], caplog: pytest.LogCaptureFixture
) -> None:
    ear = listen(redis_server.url.replace(PASSWORD, "wrong-canary"))
    wait_until(lambda: bool(events(caplog)))
    assert ear.bus.status == "away"
    assert events(caplog) == ["redis_away"]
    assert "canary" not in caplog.text


# TLS


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    return ensure_local_certificate(tmp_path_factory.mktemp("tls"), int(time.time()))


@pytest.fixture(scope="module")
def secure_redis(need: Need, local: LocalCertificate) -> Iterator[RedisServer]:
    """A Redis that takes nothing but TLS, under an authority of its own."""
    with run_redis(need("redis-server"), certificate=local.cert, key=local.key) as server:
        yield server


def test_over_tls_it_is_heard_where_its_authority_is_trusted(
    secure_redis: RedisServer,
    local: LocalCertificate,
    listen: Callable[[str], Ear],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(local.ca))
    ear = listen(secure_redis.url)
    ear.wait_for(1)
    ear.bus.tell()
    ear.wait_for(2)


def test_a_certificate_that_is_not_trusted_is_told_with_the_reason(
    secure_redis: RedisServer,
    local: LocalCertificate,
    listen: Callable[[str], Ear],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    for url, reason in (
        (secure_redis.url, "unable to get local issuer certificate"),
        (secure_redis.url.replace("localhost", "127.1"), "Hostname mismatch, certificate is not valid for '127.1'."),
    ):
        caplog.clear()
        ear = listen(url)
        wait_until(lambda: events(caplog) == ["redis_away"])
        assert json.loads(caplog.records[-1].getMessage())["reason"] == f"its certificate is not good: {reason}"
        assert (ear.times, ear.bus.status) == (0, "away")
        assert PASSWORD not in caplog.text
        monkeypatch.setenv("SSL_CERT_FILE", str(local.ca))
