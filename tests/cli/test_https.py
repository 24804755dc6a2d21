"""The listener as Python's ssl finds it: versions, suites, protocols; and a certificate that changes under load."""

import contextlib
import http.client
import logging
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from jotgate.cli.process import Listening, _granian, _Replacing
from jotgate.cli.renewing import Renewal
from jotgate.server.tls import ensure_local_certificate
from tests.cli.test_serve import der, handshake, make_certificate, rewrite_in_the_old_form, served_certificate, turn
from tests.conftest import RunningServer, StartServer, launch
from tests.services import PostgresServer

WITHIN_S = 60
SUITES_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
STRONG = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")


def unverified() -> ssl.SSLContext:
    """A client that would speak anything: what the server refuses, it refuses by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return context


@pytest.fixture(scope="module")
def rsa_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with an RSA key: without one, suites that encrypt to it would be refused for want of it."""
    folder = tmp_path_factory.mktemp("rsa")
    cert, key = make_certificate(folder, key=rsa.generate_private_key(65537, 2048))
    server = launch(["serve", "--tls-cert", str(cert), "--tls-key", str(key)], folder / "data")
    yield server
    assert server.stop() == 0, server.output


@pytest.fixture(params=["ECDSA", "RSA"])
def listener(request: pytest.FixtureRequest) -> tuple[str, int]:
    """The kind of a server's key, and its port."""
    name = {"ECDSA": "running_server", "RSA": "rsa_server"}[request.param]
    return request.param, request.getfixturevalue(name).port


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(listener: tuple[str, int], version: str) -> None:
    context = unverified()
    with pytest.warns(DeprecationWarning, match=version):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|HANDSHAKE_FAILURE"):
        handshake(listener[1], context)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_today_s_versions_are_spoken(listener: tuple[str, int], version: str) -> None:
    context = unverified()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with handshake(listener[1], context) as connection:
        assert connection.version() == version.replace("_", ".")
        assert connection.compression() is None


def test_of_tls_1_2_suites_only_those_with_forward_secrecy_and_aead_are_spoken(listener: tuple[str, int]) -> None:
    kind, port = listener
    context = unverified()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    # Those with secrets agreed upon before are offered by nobody who has none.
    known = {suite["name"] for suite in context.get_ciphers() if not re.search("PSK|SRP", suite["name"])} - SUITES_1_3
    weak = {"AES128-SHA", "AES128-GCM-SHA256", f"ECDHE-{kind}-AES128-SHA", f"ECDHE-{kind}-AES256-SHA384"}
    assert weak <= known  # CBC and the exchange by RSA: so that there is something to refuse
    assert {name for name in known if speaks(port, context, name)} == {f"ECDHE-{kind}-{name}" for name in STRONG}


def speaks(port: int, context: ssl.SSLContext, suite: str) -> bool:
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    try:
        with handshake(port, context) as connection:
            spoken = connection.cipher()
            return spoken is not None and spoken[0] == suite
    except ssl.SSLError as refused:
        if "HANDSHAKE_FAILURE" not in refused.reason:  # the server's own alert, and not this side's want of something
            raise
        return False


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)],
)
def test_http_2_and_http_1_1_are_agreed_upon(
    running_server: RunningServer, offered: list[str], agreed: str | None
) -> None:
    context = running_server.trust()
    if offered:
        context.set_alpn_protocols(offered)
    with handshake(running_server.port, context) as connection:
        assert connection.selected_alpn_protocol() == agreed


def test_a_client_that_speaks_neither_is_refused_in_the_handshake(running_server: RunningServer) -> None:
    context = running_server.trust()
    context.set_alpn_protocols(["acme-tls/1", "smtp"])  # RFC 7301 section 3.2
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        handshake(running_server.port, context)


# A certificate that changes


class Client:
    """Asks again and again on a thread of its own, until it is told to stop; a request may need one reconnect."""

    def __init__(self, port: int, context: ssl.SSLContext, path: str, *, keep_alive: bool) -> None:
        self._port, self._context, self._path, self._keep_alive = port, context, path, keep_alive
        self._connection: http.client.HTTPSConnection | None = None
        self.stop = threading.Event()
        self.answered = self.reconnected = 0
        self.failed: list[str] = []
        self.certificates: list[bytes] = []  # one for each connection, in their order
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                try:
                    status = self._ask()
                except (OSError, http.client.HTTPException):
                    self.reconnected += 1
                    self._close()
                    status = self._ask()
                if status != http.client.OK:
                    self.failed.append(f"status {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                self._close()
            self.answered += 1
            self.stop.wait(0.005)
        self._close()

    def _ask(self) -> int:
        if self._connection is None:
            self._connection = connection = http.client.HTTPSConnection(
                "localhost", self._port, timeout=WITHIN_S, context=self._context
            )
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            self.certificates.append(connection.sock.getpeercert(binary_form=True) or b"")
        self._connection.request("GET", self._path)
        answer = self._connection.getresponse()
        answer.read()
        if not self._keep_alive:
            self._close()
        return answer.status

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Reader:
    """Reads the stream of revocations, and goes on where it was when it ends."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        self.stop = threading.Event()
        self.connected: list[int] = []  # the status of each connection
        self.events = 0
        self.last_id = ""
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._read()

    def _read(self) -> None:
        connection = http.client.HTTPSConnection("localhost", self._port, timeout=WITHIN_S, context=self._context)
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        try:
            connection.request("GET", "/revocations/stream", headers=headers)
            answer = connection.getresponse()
            self.connected.append(answer.status)
            for line in iter(answer.readline, b""):
                if found := re.match(rb"id: *(\S+)", line):
                    self.last_id = found[1].decode()
                    self.events += 1
                if self.stop.is_set():
                    return
        finally:
            connection.close()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.05)


def test_a_certificate_that_changes_under_load_fails_no_request(start_server: StartServer, tmp_path: Path) -> None:
    limits = {f"JOTGATE_LIMIT_{name}": "100000/second" for name in ("REQUESTS", "FEED")}
    server = start_server("serve", data_dir=tmp_path / "data", env=limits)
    context = server.trust()
    steady = Client(server.port, context, "/.well-known/jwks.json", keep_alive=True)
    coming = Client(server.port, context, "/healthz", keep_alive=False)
    reader = Reader(server.port, context)
    everybody = (steady, coming, reader)
    for each in everybody:
        each.thread.start()
    wait_until(lambda: reader.last_id and coming.answered and steady.answered, "the load has begun")
    old = der(tmp_path / "data" / "tls" / "cert.pem")

    (tmp_path / "data" / "tls" / "cert.pem").unlink()
    ensure_local_certificate(tmp_path / "data" / "tls", int(time.time()))

    new = der(tmp_path / "data" / "tls" / "cert.pem")
    # Both serve for a while, and then the old worker goes, with it what is kept alive.
    wait_until(lambda: steady.certificates[-1] == new, "the connection that was kept alive is renewed")
    wait_until(lambda: coming.certificates[-20:] == [new] * 20, "new connections see the new certificate alone")
    wait_until(lambda: len(reader.connected) > 1, "the stream is taken up again")
    heard, asked = reader.events, coming.answered
    wait_until(lambda: reader.events > heard and coming.answered > asked, "everything goes on")
    for each in everybody:
        each.stop.set()
        each.thread.join(WITHIN_S)
        assert not each.thread.is_alive()

    assert steady.failed == coming.failed == []
    assert set(steady.certificates) == set(coming.certificates) == {old, new}
    assert len(steady.certificates) == 2
    assert steady.reconnected <= 1
    assert set(reader.connected) == {200}
    assert len(reader.connected) == 2
    assert server.output.count("the certificate has changed: new workers take over") == 1
    assert server.stop() == 0
    assert "Traceback" not in server.output


def test_half_a_renewal_is_told_once_and_the_rest_of_it_taken(start_server: StartServer, tmp_path: Path) -> None:
    pairs = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        pairs.append(make_certificate(tmp_path / name))
        rewrite_in_the_old_form(pairs[-1][1])
    live = [tmp_path / "cert.pem", tmp_path / "key.pem"]  # links, as certbot has them
    for link, file in zip(live, pairs[0], strict=True):
        link.symlink_to(file)
    options = ["--tls-cert", str(live[0]), "--tls-key", str(live[1])]
    server = start_server("serve", *options, data_dir=tmp_path / "data")
    assert served_certificate(server.port) == der(pairs[0][0])
    turn(live[0], pairs[1][0])
    server.wait_for(".*does not belong to the certificate.*")
    os.kill(server.process.pid, signal.SIGHUP)  # who asks is told again
    server.wait_for("(?s:.*does not belong.*does not belong.*)")
    assert served_certificate(server.port) == der(pairs[0][0])
    turn(live[1], pairs[1][1])
    wait_until(lambda: served_certificate(server.port) == der(pairs[1][0]), "the new pair is served")
    assert server.output.count("error: ") == 2
    assert server.stop() == 0


def test_a_file_that_is_rewritten_while_workers_are_replaced_ends_nothing(
    start_server: StartServer, tmp_path: Path
) -> None:
    cert, key = make_certificate(tmp_path)
    options = ("--tls-cert", str(cert), "--tls-key", str(key), "--workers", "2")
    server = start_server("serve", *options, data_dir=tmp_path / "data")
    tls_dir, whole, before = tmp_path / "data" / "tls", cert.read_bytes(), served_certificate(server.port)

    def copies() -> list[str]:
        return sorted(path.parent.name for path in tls_dir.glob("serving-*/*/key.pem"))

    assert copies() == ["1"]
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until(lambda: copies() == ["1", "2"], "what the new workers serve with is there")
    cert.write_bytes(whole[:100])  # seconds before the second of them begins
    wait_until(lambda: copies() == ["2"], "both have been replaced")
    assert served_certificate(server.port) == before
    server.wait_for(".*holds no certificate in PEM form.*")
    cert.write_bytes(whole)
    assert server.stop() == 0
    assert "panicked" not in server.output


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Granian sets up the logging of its process, which is here that of all tests."""
    loggers = [logging.getLogger(name) for name in ("jotgate", "_granian", "granian.access")]
    before = [(each, each.level, each.propagate, [*each.handlers], [*each.filters]) for each in loggers]
    yield
    for each, level, propagate, handlers, filters in before:
        each.setLevel(level)
        each.propagate, each.handlers, each.filters = propagate, handlers, filters


def test_whatever_goes_wrong_in_a_look_is_told_and_the_next_look_comes(
    capsys: pytest.CaptureFixture[str], logging_as_it_was: None
) -> None:
    looks: list[int] = []

    def prepare(now: int) -> None:
        looks.append(now)
        if len(looks) < 3:
            raise RuntimeError("of a kind that nobody thought of")

    server = _granian(Listening("127.0.0.1", 1, None, 1, "error"))
    stopping = threading.Event()
    replacing = _Replacing(server, Renewal((), prepare, int(time.time())), lambda: 200, 0.01, stopping)
    replacing.start()
    for _ in range(3):
        replacing.ask()
    wait_until(lambda: server.reload_signal, "the third look succeeds")
    stopping.set()
    sentence = "error: the workers are not replaced: RuntimeError: of a kind that nobody thought of\n"
    assert capsys.readouterr().err == 2 * sentence


def test_new_workers_wait_for_the_database_while_the_old_ones_serve(
    start_server: StartServer, tmp_path: Path, own_postgres: PostgresServer
) -> None:
    cert, key = make_certificate(tmp_path)
    environment = {
        "JOTGATE_DATABASE_URL": own_postgres.new_database(),
        "JOTGATE_MASTER_KEY": "A" * 42 + "E",
        "JOTGATE_ISSUER": "https://auth.shop.example",
    }
    options = ("--tls-cert", str(cert), "--tls-key", str(key))
    server = start_server("serve", *options, data_dir=tmp_path / "data", env=environment)
    before = served_certificate(server.port)
    own_postgres.stop()
    make_certificate(tmp_path)
    server.wait_for("the certificate has changed; new workers wait until the server is ready .*")
    assert served_certificate(server.port) == before
    own_postgres.start()
    wait_until(lambda: served_certificate(server.port) == der(cert), "the new certificate is served")
    assert server.stop() == 0


FORK = """
import os, threading
from jotgate.cli.process import Listening, _granian, _Replacing
from jotgate.cli.renewing import Renewal

server = _granian(Listening("127.0.0.1", 1, None, 1, "error"))
looking, go_on, has_forked = threading.Event(), threading.Event(), threading.Event()
renewal = Renewal((), lambda now: (looking.set(), go_on.wait(), None)[2], 0)
replacing = _Replacing(server, renewal, lambda: 200, 3600.0, threading.Event())
replacing.keep_off_forks()
replacing.start()
replacing.ask()
looking.wait()

def fork():
    child = os.fork()
    if child == 0:
        os._exit(replacing._busy.acquire(blocking=False) - 1)  # a child finds it free
    print(os.waitpid(child, 0)[1], flush=True)
    has_forked.set()

threading.Thread(target=fork).start()
print(has_forked.wait(0.5), flush=True)
go_on.set()
print(has_forked.wait(30), flush=True)
os._exit(0)
"""


def test_no_worker_is_split_off_while_a_certificate_is_looked_at() -> None:
    command = [sys.executable, "-c", FORK]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=True)
    assert ended.stdout.split() == ["False", "0", "True"], ended.stderr
