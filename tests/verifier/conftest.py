"""Fixtures around the servers of `servers.py`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from jotgate import Verifier
from tests.verifier.feed_server import FakeFeed
from tests.verifier.servers import WITHIN_S, Certificates, FakeIssuer, IssuerServer, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificates: Certificates) -> Iterator[IssuerServer]:
    started = IssuerServer(certificates, socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=started.serve, daemon=True)
    thread.start()
    yield started
    started.stop()
    thread.join(WITHIN_S)


@pytest.fixture
def issuer(server: IssuerServer) -> FakeIssuer:
    """An issuer that answers as it should."""
    fake = FakeIssuer(server)
    fake.publish()
    return fake


@pytest.fixture
def feed(issuer: FakeIssuer) -> FakeFeed:
    """The revocation feed of that issuer, named in its metadata."""
    made = FakeFeed(issuer)
    made.publish()
    return made


@pytest.fixture
def start(issuer: FakeIssuer) -> Iterator[Callable[..., Verifier]]:
    """`start(refresh_s=…)` makes a verifier of that issuer; it is closed after the test."""
    made: list[Verifier] = []

    def make(**options: object) -> Verifier:
        made.append(issuer.verifier(**options))
        return made[-1]

    yield make
    for verifier in made:
        verifier.close()
