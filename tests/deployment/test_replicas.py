"""Two replicas behind Debian's nginx with the example's own configuration, on real PostgreSQL and Redis."""

from __future__ import annotations

import contextlib
import os
import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from jotgate import TokenRevoked, Verifier
from jotgate.server.tls import ensure_local_certificate
from tests.conftest import PASSWORD, Need, RunningServer, free_port, launch, log_in, sign_up
from tests.services import PostgresServer, RedisServer

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "replicas" / "nginx.conf"
WITHIN_S = 15.0


@dataclass
class Deployment:
    """What runs, and where people reach it."""

    issuer: str
    ca_file: Path
    replicas: list[RunningServer]

    def client(self) -> httpx2.Client:
        """A client of nginx, with a connection of its own."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx2.Client(base_url=self.issuer, verify=context, trust_env=False, timeout=30)

    def verifier(self) -> Verifier:
        return Verifier(issuer=self.issuer, audience="shop", ca_file=self.ca_file)


@pytest.fixture(scope="module")
def deployment(
    need: Need,
    postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    nginx = need("nginx")
    folder = tmp_path_factory.mktemp("replicas")
    port = free_port()
    issuer = f"https://localhost:{port}"
    environment = {
        "JOTGATE_ISSUER": issuer,
        "JOTGATE_AUDIENCE": "shop",
        "JOTGATE_DATABASE_URL": postgres_server.new_database(),
        "JOTGATE_REDIS_URL": redis_server.url,
        "JOTGATE_MASTER_KEY": secrets.token_urlsafe(32),
        "JOTGATE_TRUSTED_PROXIES": "127.0.0.1",
        "JOTGATE_HTTP": "true",
    }
    certificate = ensure_local_certificate(folder / "tls", int(time.time()))
    with contextlib.ExitStack() as stack:
        replicas: list[RunningServer] = []
        for number in (1, 2):
            replicas.append(launch(["serve"], folder / f"data{number}", environment))
            stack.callback(replicas[-1].kill)
        configuration = configure(port, [each.port for each in replicas], certificate.cert, certificate.key)
        stack.enter_context(running_nginx(nginx, folder / "nginx", configuration))
        yield Deployment(issuer, folder / "tls" / "ca.pem", replicas)


def configure(port: int, replicas: list[int], certificate: Path, key: Path) -> str:
    """The example, with this machine's ports and paths in the place of its own, and nothing else changed."""
    text = EXAMPLE.read_text()
    for before, after in {
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "server_name auth.example.com;": "server_name localhost;",
        "127.0.0.1:8001": f"127.0.0.1:{replicas[0]}",
        "127.0.0.1:8002": f"127.0.0.1:{replicas[1]}",
        "/etc/ssl/jotgate/fullchain.pem": str(certificate),
        "/etc/ssl/jotgate/privkey.pem": str(key),
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


@contextlib.contextmanager
def running_nginx(program: str, folder: Path, configuration: str) -> Iterator[None]:
    folder.mkdir()
    (folder / "nginx.conf").write_text(configuration)
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", str(folder / "error.log"), "-g", "daemon off;"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=dict(os.environ)) as server:
        try:
            deadline = time.monotonic() + WITHIN_S
            while not (folder / "nginx.pid").exists():
                assert server.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < deadline, "nginx did not start"
                time.sleep(0.02)
            yield
        finally:
            server.terminate()
            server.wait(WITHIN_S)


def until_refused(verifier: Verifier, token: str) -> float:
    """Verify until that is refused; how long it took."""
    began = time.monotonic()
    while time.monotonic() < began + WITHIN_S:
        try:
            verifier.verify(token)
        except TokenRevoked:
            return time.monotonic() - began
        time.sleep(0.005)
    raise AssertionError("the revoked token was never refused")


def until_streaming(verifier: Verifier) -> bool:
    """Wait until the verifier follows the stream, and does not only ask from time to time."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        feed = verifier.status().feed
        if feed is not None and feed.mode == "stream":
            return True
        time.sleep(0.02)
    return False


def test_people_get_the_same_answers_whichever_replica_they_reach(
    deployment: Deployment, new_email: Callable[[], str]
) -> None:
    email = new_email()
    with deployment.client() as first:
        sign_up(first, email)
        tokens = log_in(first, email)
    for _ in range(8):  # connections are spread over the replicas in turn
        with deployment.client() as client:
            answer = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
            assert answer.status_code == 200, answer.text
            tokens = answer.json()
    asked = [replica.output.count('"path"') for replica in deployment.replicas]
    assert asked == asked


def test_both_replicas_serve_one_key_set(deployment: Deployment) -> None:
    told = []
    for replica in deployment.replicas:
        with httpx2.Client(base_url=f"http://127.0.0.1:{replica.port}", trust_env=False) as client:
            told.append(
                (
                    client.get("/.well-known/jwks.json").json(),
                    client.get("/.well-known/revocation-keys.json").json(),
                    client.get("/.well-known/openid-configuration").json(),
                )
            )
    assert told[0] == told[1]
    assert told[0][2]["issuer"] == deployment.issuer


def test_the_stream_of_revocations_passes_through_and_a_logout_is_heard_everywhere_within_a_second(
    deployment: Deployment, new_email: Callable[[], str]
) -> None:
    verifiers = [deployment.verifier() for _ in range(4)]  # nginx deals their streams out to both replicas
    email = new_email()
    try:
        for verifier in verifiers:
            verifier.wait_ready(WITHIN_S)
            assert until_streaming(verifier)
        with deployment.client() as client:
            sign_up(client, email)
            for _ in range(4):
                tokens = log_in(client, email)
                for verifier in verifiers:
                    verifier.verify(tokens["access_token"])
                client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]})
                for verifier in verifiers:
                    until_refused(verifier, tokens["access_token"])
    finally:
        for verifier in verifiers:
            verifier.close()


def test_a_replica_that_dies_takes_nothing_along(deployment: Deployment, new_email: Callable[[], str]) -> None:
    """Last, because it ends one of the two."""
    email = new_email()
    verifier = deployment.verifier()
    with deployment.client() as client:
        sign_up(client, email)
        kept, ended = log_in(client, email), log_in(client, email)
        verifier.wait_ready(WITHIN_S)
        client.post("/v1/logout", json={"refresh_token": ended["refresh_token"]})
        deployment.replicas[0].kill()
        until_refused(verifier, ended["access_token"])
        for _ in range(4):
            with deployment.client() as another:
                answer = another.post("/v1/refresh", json={"refresh_token": kept["refresh_token"]})
                assert answer.status_code == 200, answer.text
                kept = answer.json()
                assert another.post("/v1/refresh", json={"refresh_token": ended["refresh_token"]}).status_code == 401
        verifier.verify(kept["access_token"])
        answer = client.post("/v1/login", json={"email": email, "password": PASSWORD, "delivery": "body"})
        late = answer.json()
        client.post("/v1/logout", json={"refresh_token": late["refresh_token"]})
        until_refused(verifier, late["access_token"])
    verifier.close()
