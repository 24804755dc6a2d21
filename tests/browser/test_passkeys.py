"""A passkey in Chromium, with the authenticator that it plays itself (WebAuthn section 11.2), and a real server.

The API is asked by scripts on the server's own origin, as a front end asks it.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import WITHIN_MS, launched, with_authenticator
from tests.conftest import PASSWORD, Need, RunningServer, launch

EMAIL = "ada@example.com"
CALL = """async ([path, body]) => {
    const headers = {"content-type": "application/json", "jotgate-client": "1"};
    const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify(body)});
    return [answer.status, await answer.json()];
}"""
CREATE = """async options => {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    return (await navigator.credentials.create({publicKey})).toJSON();
}"""
GET = """async options => {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
    return (await navigator.credentials.get({publicKey})).toJSON();
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = launch(["serve"], tmp_path_factory.mktemp("passkeys") / "data", {"JOTGATE_SIGNUP": "open"})
    yield running
    assert running.stop() == 0


@pytest.fixture
def page(server: RunningServer, need: Need) -> Iterator[Page]:
    with launched(server, need("chromium")) as chromium:
        yield open_page(chromium, server)


def open_page(chromium: Browser, server: RunningServer) -> Page:
    # The server's pages let no script ask anything: that is what is lifted here.
    context = chromium.new_context(base_url=server.url, bypass_csp=True)
    context.set_default_timeout(WITHIN_MS)
    page = context.new_page()
    page.goto("/password/forgot")
    with_authenticator(page)
    return page


def call(page: Page, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    status, answer = page.evaluate(CALL, [path, body])
    return int(status), dict(answer)


def test_a_passkey_is_registered_and_logs_in_alone_and_as_the_second_factor(page: Page) -> None:
    person = {"email": EMAIL, "password": PASSWORD}
    assert call(page, "/v1/signup", person)[0] == 201
    assert call(page, "/v1/login", person)[0] == 200
    status, made = call(page, "/v1/factors/passkeys/options", {"current_password": PASSWORD})
    assert status == 200, made
    passkey = page.evaluate(CREATE, made["passkey"])
    status, added = call(page, "/v1/factors/passkeys", {"passkey": passkey, "name": "This computer"})
    assert status == 200, added
    assert len(added["recovery_codes"]) == 10

    page.context.clear_cookies()
    _, asked = call(page, "/v1/login/passkey/options", {})
    shown = page.evaluate(GET, asked["passkey"])
    status, tokens = call(page, "/v1/login/passkey", {"passkey": shown})
    assert status == 200, tokens
    status, refused = call(page, "/v1/login/passkey", {"passkey": shown})
    assert (status, refused["code"]) == (422, "passkey_refused")

    page.context.clear_cookies()
    status, first = call(page, "/v1/login", person)
    assert (status, first["factors"]) == (202, ["passkey", "recovery_code"])
    second = {"ticket": first["ticket"], "passkey": page.evaluate(GET, first["passkey"])}
    assert call(page, "/v1/login/second-factor", second)[0] == 200
    # The cookie is this session's.
    assert call(page, "/v1/refresh", {})[0] == 200
