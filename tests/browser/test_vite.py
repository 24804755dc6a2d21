"""The page on Vite's port, jotgate on another: the example's configuration, in Chromium, with Vite itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from jotgate import TokenRevoked, Verifier
from tests.browser.conftest import launched
from tests.conftest import PASSWORD, Need, RunningServer, free_port, launch, sign_up

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "vite"
EMAIL = "ada@example.com"
READY_WITHIN_S = 60


@pytest.fixture(scope="module")
def vite_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, vite_port: int) -> Iterator[RunningServer]:
    issuer = f"https://localhost:{vite_port}/auth"
    running = launch(["serve"], tmp_path_factory.mktemp("vite") / "data", {"JOTGATE_ISSUER": issuer})
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def vite(server: RunningServer, vite_port: int, need: Need, node_modules: Path) -> Iterator[str]:
    """Vite, in front of both; gives its origin."""
    page = server.data_dir.parent / "page"
    shutil.copytree(EXAMPLE, page)
    process = subprocess.Popen(
        [need("node"), str(node_modules / "vite" / "bin" / "vite.js"), "--port", str(vite_port), "--host", "localhost"],
        cwd=page,
        env=os.environ | {"JOTGATE_DATA_DIR": str(server.data_dir), "JOTGATE_URL": server.url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    origin = f"https://localhost:{vite_port}"
    try:
        with httpx2.Client(verify=server.trust(), trust_env=False) as client:
            deadline = time.monotonic() + READY_WITHIN_S
            while not answers(client, origin):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield origin
    finally:
        process.terminate()
        process.wait()


def answers(client: httpx2.Client, origin: str) -> bool:
    try:
        return client.get(origin).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.fixture(scope="module")
def chromium(server: RunningServer, need: Need) -> Iterator[Browser]:
    with launched(server, need("chromium")) as browser:
        yield browser


def test_a_person_logs_in_reloads_and_logs_out_on_vites_port(
    chromium: Browser, vite: str, server: RunningServer
) -> None:
    with httpx2.Client(base_url=f"{vite}/auth", verify=server.trust(), trust_env=False) as client:
        sign_up(client, EMAIL)
    page = chromium.new_context(base_url=vite).new_page()
    page.goto("/")
    status = page.get_by_role("status")
    expect(status).to_have_text("logged out")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(status).to_have_text("logged in")
    page.reload()
    expect(status).to_have_text("logged in")
    page.get_by_role("button", name="Log out").click()
    expect(status).to_have_text("logged out")
    page.reload()
    expect(status).to_have_text("logged out")


def test_a_verifier_finds_the_issuer_there_and_hears_of_a_logout(vite: str, server: RunningServer) -> None:
    account = {"email": "eve@example.com", "password": PASSWORD}
    with (
        httpx2.Client(base_url=f"{vite}/auth", verify=server.trust(), trust_env=False) as client,
        Verifier(issuer=f"{vite}/auth", audience="api", ca_file=server.ca_file, key_wait_s=30) as verifier,
    ):
        assert client.post("/v1/signup", json=account).status_code == 201
        tokens = client.post("/v1/login", json=account | {"delivery": "body"}).json()
        verifier.wait_ready(30)  # Playwright has an event loop here, in which `verify` would not wait
        claims = verifier.verify(tokens["access_token"])
        heard = threading.Event()
        verifier.on_revoked(lambda revocation: heard.set() if revocation.covers(claims) else None)
        client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]})
        assert heard.wait(30)
        with pytest.raises(TokenRevoked):
            verifier.verify(tokens["access_token"])
