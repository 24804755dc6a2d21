"""Debian's Chromium in front of the real `jotgate demo`."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.conftest import Need, RunningServer

WITHIN_MS = 20_000  # only a failing test waits so long


def arguments(server: RunningServer) -> list[str]:
    """Chromium's, to accept the server's own certificate, known by its public key, and no other unknown one."""
    certificate = x509.load_pem_x509_certificate((server.data_dir / "tls" / "cert.pem").read_bytes())
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    return [
        f"--ignore-certificate-errors-spki-list={pin}",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]


@contextmanager
def launched(server: RunningServer, chromium_path: str) -> Iterator[Browser]:
    """Chromium that accepts the server's certificate."""
    expect.set_options(timeout=WITHIN_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path, args=arguments(server))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def browser(running_shop: RunningServer, need: Need) -> Iterator[Browser]:
    """Chromium in front of the shop."""
    with launched(running_shop, need("chromium")) as chromium:
        yield chromium


@pytest.fixture
def context(browser: Browser, running_shop: RunningServer) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=running_shop.url, locale="en-GB")
    context.set_default_timeout(WITHIN_MS)
    yield context
    context.close()


@pytest.fixture(scope="session")
def axe(node_modules: Path) -> str:
    """The script of axe-core, to be put into pages."""
    file = node_modules / "axe-core" / "axe.min.js"
    if not file.exists():
        pytest.skip("npm's axe-core is not installed (scripts/ensure-services does it)")
    return file.read_text(encoding="utf-8")


def with_authenticator(page: Page) -> None:
    """Let Chromium play an authenticator that its owner unlocks (WebAuthn section 11.2)."""
    tools = page.context.new_cdp_session(page)
    tools.send("WebAuthn.enable")
    authenticator = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    tools.send("WebAuthn.addVirtualAuthenticator", {"options": authenticator})
