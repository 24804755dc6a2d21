"""The hosted pages in Chromium, under their own policy: a real server, with scripts and without."""

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.browser.conftest import WITHIN_MS, launched, with_authenticator
from tests.conftest import PASSWORD, Need, RunningServer, launch

OTHER = "another battery staples the horse"
MOST_BYTES = 60_000
SCREENSHOTS = "SCREENSHOTS_TO"
"""Environment variable that names a folder for pictures of every page."""
CODE = "A" * 43


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    settings = {
        "JOTGATE_SIGNUP": "open",
        "JOTGATE_BRAND_NAME": "Café & Söhne",
        "JOTGATE_HOME_URL": "https://shop.example.com",
    }
    running = launch(["serve"], tmp_path_factory.mktemp("pages") / "data", settings)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def browser(server: RunningServer, need: Need) -> Iterator[Browser]:
    with launched(server, need("chromium")) as chromium:
        yield chromium


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def new_context(browser: Browser, server: RunningServer) -> Iterator[NewContext]:
    """Makes browsers that share nothing, and closes them."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:  # noqa: ANN401  whatever Playwright takes
        made.append(browser.new_context(base_url=server.url, locale="en-GB", **options))
        made[-1].set_default_timeout(WITHIN_MS)
        return made[-1]

    yield make
    for context in made:
        context.close()


def faults_of(page: Page) -> list[str]:
    """What the browser's console has to complain about, save forms that were refused."""
    faults: list[str] = []
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    return faults


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until it holds; what the browser tells meanwhile arrives."""
    deadline = time.monotonic() + WITHIN_MS / 1000
    while not holds():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def press(page: Page, name: str | re.Pattern[str]) -> None:
    page.get_by_role("button", name=name).click()


def sign_up(page: Page, email: str) -> None:
    page.goto("/signup")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("New password").fill(PASSWORD)
    press(page, "Make my account")
    heading(page, "Your account")


def log_in(page: Page, email: str, password: str = PASSWORD) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in", exact=True).click()


def add_app(page: Page) -> tuple[pyotp.TOTP, list[str]]:
    page.get_by_role("link", name="Add an app").click()
    page.get_by_label("Your password").fill(PASSWORD)
    press(page, "Go on")
    app = pyotp.TOTP(page.locator("figcaption code").inner_text())
    page.get_by_label("Code").fill(app.now())
    press(page, "Connect the app")
    heading(page, "Your recovery codes")
    return app, page.locator(".codes code").all_inner_texts()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_person_signs_up_secures_the_account_and_throws_another_device_out(
    new_context: NewContext, scripts: bool
) -> None:
    email = "js@example.com" if scripts else "plain@example.com"
    page = new_context(java_script_enabled=scripts).new_page()
    faults = faults_of(page)
    page.goto("/account")
    heading(page, "Log in")
    expect(page.get_by_text("Log in to go on.")).to_be_visible()
    expect(page.get_by_role("button", name="Log in with a passkey")).to_be_visible(visible=scripts)
    page.get_by_role("link", name="Make an account").click()
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("New password").fill("passwordpassword")
    press(page, "Make my account")
    expect(page.get_by_role("alert")).to_contain_text("guessed first")
    expect(page.get_by_label("New password")).to_be_focused()
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("New password").fill(PASSWORD)
    press(page, "Make my account")
    heading(page, "Your account")
    expect(page.get_by_text(email)).to_be_visible()
    _, codes = add_app(page)
    page.get_by_role("link", name="I have kept them").click()
    press(page, "Log out here")
    heading(page, "You are logged out")
    page.go_back()
    expect(page.get_by_text(email)).to_have_count(0)

    page.goto("/login?return_to=/account/password")
    log_in(page, email, OTHER)
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    log_in(page, email)
    heading(page, "One more step")
    page.get_by_label("Code").fill("000000")
    press(page, "Go on with the code")
    expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    page.get_by_label("Code").fill(codes[0])
    press(page, "Go on with the code")
    heading(page, "Change your password")

    other = new_context(java_script_enabled=scripts, user_agent="Mozilla/5.0 (iPhone) CriOS/140").new_page()
    other.goto("/login")
    log_in(other, email)
    other.get_by_label("Code").fill(codes[1])
    press(other, "Go on with the code")
    heading(other, "Your account")

    page.goto("/account")
    press(page, "Log out Chrome on iPhone")
    expect(page.get_by_role("status").first).to_have_text("That browser is logged out.")
    other.reload()
    heading(other, "Log in")
    page.reload()
    heading(page, "Your account")
    press(page, "Log out everywhere")
    heading(page, "You are logged out")
    assert [fault for fault in faults if "422" not in fault] == []


def test_where_cookies_are_withheld_from_other_sites_a_person_arrives_logged_in(
    new_context: NewContext, server: RunningServer
) -> None:
    page = new_context().new_page()
    sign_up(page, "arriving@example.com")

    def mail_client(route: Route) -> None:
        route.fulfill(body=f'<a href="{server.url}/account/address">Go</a>', content_type="text/html")

    page.route("https://mail.example/**", mail_client)
    page.goto("https://mail.example/")
    page.get_by_role("link").click()
    heading(page, "Change your e-mail address")
    assert page.url == f"{server.url}/account/address?arrived=1"
    # Who is not logged in comes to the login, and from there to where they wanted.
    page.context.clear_cookies()
    page.goto("https://mail.example/")
    page.get_by_role("link").click()
    heading(page, "Log in")
    log_in(page, "arriving@example.com")
    heading(page, "Change your e-mail address")


def test_a_form_of_another_site_does_nothing(new_context: NewContext, server: RunningServer) -> None:
    page = new_context().new_page()
    sign_up(page, "forged@example.com")
    form = f'<form method="post" action="{server.url}/account/logout"><button>Win</button></form>'
    page.route("https://evil.example/**", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("https://evil.example/")
    press(page, "Win")
    heading(page, "That did not work")
    page.goto("/account")
    heading(page, "Your account")


def test_what_somebody_gets_into_a_page_does_not_run(new_context: NewContext, server: RunningServer) -> None:
    page = new_context().new_page()
    faults = faults_of(page)
    bad = (
        "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
        '<script src="https://evil.example/x.js"></script><style>h1 { display: none }</style>'
        '<form id="away" action="https://evil.example/"><button>Away</button></form></main>'
    )

    def with_bad(route: Route) -> None:
        with server.client() as client:
            answer = client.get("/login")
        headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
        route.fulfill(status=200, headers=headers, body=answer.text.replace("</main>", bad))

    page.route("**/login", with_bad)
    page.goto("/login")
    heading(page, "Log in")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    broken = ["inline script", "event handler", "image", "script 'https://evil.example", "inline style"]

    def told() -> bool:
        return all(any(each in fault for fault in faults) for each in broken)

    until(page, told)
    assert page.title().startswith("Log in")
    page.get_by_role("button", name="Away").click(no_wait_after=True)  # for there is nothing to wait for
    broken.append("form-action")
    until(page, told)
    assert page.url == f"{server.url}/login"


def add_passkey(page: Page, name: str) -> None:
    page.goto("/account/passkeys")
    page.get_by_label("Name of the passkey").fill(name)
    page.get_by_label("Your password").fill(PASSWORD)
    press(page, "Go on")
    press(page, "Make the passkey")


NOTHING_OFFERED = "PublicKeyCredential.isConditionalMediationAvailable = async () => false"


def test_a_passkey_is_made_and_logs_in_alone_and_as_the_second_step(new_context: NewContext) -> None:
    page = new_context().new_page()
    page.add_init_script(NOTHING_OFFERED)  # or the simulated person would take what is offered, and press no button
    faults = faults_of(page)
    with_authenticator(page)
    sign_up(page, "keys@example.com")
    add_passkey(page, "This computer")
    heading(page, "Your recovery codes")
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("listitem").filter(has_text="This computer")).to_be_visible()
    press(page, "Log out here")

    page.goto("/login?return_to=/account/address")
    press(page, "Log in with a passkey")
    heading(page, "Change your e-mail address")
    page.goto("/account")
    press(page, "Log out here")

    page.goto("/login")
    log_in(page, "keys@example.com")
    heading(page, "One more step")
    press(page, "Use a passkey")
    heading(page, "Your account")
    add_passkey(page, "Again")  # which the authenticator refuses: it has one of this account
    expect(page.get_by_role("status").last).to_have_text("No passkey came back. Try again, or take another way.")

    page.goto("/account")
    page.get_by_role("link", name="Remove This computer").click()
    page.get_by_label("Your password").fill(PASSWORD)
    press(page, "Remove the passkey")
    expect(page.get_by_role("status").first).to_have_text("The passkey is removed.")
    assert faults == []


def test_a_passkey_that_the_browser_offers_beside_the_address_logs_in(new_context: NewContext) -> None:
    page = new_context().new_page()
    faults = faults_of(page)
    with_authenticator(page)
    sign_up(page, "offered@example.com")
    add_passkey(page, "This computer")
    heading(page, "Your recovery codes")
    page.goto("/account")
    press(page, "Log out here")
    page.goto("/login?return_to=/account/address", wait_until="commit")
    heading(page, "Change your e-mail address")
    assert faults == []


EYES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "contrast": "no-preference", "forced_colors": "none"},
    "dark": {"color_scheme": "dark", "contrast": "no-preference", "forced_colors": "none"},
    "contrast": {"color_scheme": "light", "contrast": "more", "forced_colors": "none"},
    "contrast-dark": {"color_scheme": "dark", "contrast": "more", "forced_colors": "none"},
    "forced": {"color_scheme": "dark", "contrast": "more", "forced_colors": "active"},
}


WITH_EVERYTHING = ("login-refused", "account", "account-notice", "codes", "passkeys")


class Looks:
    """Looks at pages as people with other eyes, screens and languages would."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._folder = Path(folder) if (folder := os.environ.get(SCREENSHOTS)) else None
        self.sizes: dict[str, int] = {}
        self.faults: list[str] = []

    def at(self, name: str, path: str | None = None) -> None:
        """Check the page that is open, or that at a path, and keep pictures of it if somebody wants them."""
        page = self._page
        if path is not None:
            page.goto(path)
        for look, media in EYES.items():
            # All pages take their colours from one style sheet: some of them have all kinds of things in them.
            if look not in ("light", "dark") and self._folder is None and name not in WITH_EVERYTHING:
                continue
            page.emulate_media(**media)
            for width in (360, 1280):
                if self._folder is None:
                    break
                page.set_viewport_size({"width": width, "height": 800})
                page.screenshot(path=self._folder / f"{name}-{width}-{look}.png", full_page=True)
            # What is not about colours is the same for all.
            only = {} if look == "light" else {"runOnly": ["color-contrast", "link-in-text-block"]}
            found = page.evaluate("only => axe.run({resultTypes: ['violations'], ...only})", only)
            self.faults += [
                f"{name}, {look}: {each['id']} {node['html'][:200]}"
                for each in found["violations"]
                for node in each["nodes"]
            ]
        page.emulate_media(**EYES["light"])
        page.set_viewport_size({"width": 320, "height": 800})
        for direction in ("rtl", "ltr"):
            wide = page.evaluate(
                "way => { document.documentElement.dir = way; return document.documentElement.scrollWidth }", direction
            )
            if direction == "rtl" and self._folder is not None:
                page.screenshot(path=self._folder / f"{name}-320-rtl.png", full_page=True)
            if wide > 320:
                self.faults.append(f"{name}: {wide} px wide at 320, {direction}")


def test_every_page_is_accessible_in_light_and_dark_and_on_narrow_screens(new_context: NewContext, axe: str) -> None:
    context = new_context(bypass_csp=True)  # for axe, which is no part of the pages
    context.add_init_script(axe)
    page = context.new_page()
    page.add_init_script(NOTHING_OFFERED)
    with_authenticator(page)
    looks = Looks(page)
    email = "a.person.with.a.rather.long.address@department.of.an.institution.example.com"
    looks.at("login", "/login")
    log_in(page, email)
    looks.at("login-refused")
    looks.at("signup-sent", "/signup/sent")
    looks.at("signup", "/signup")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("New password").fill("short but not by much")
    expect(page.locator("#hint")).to_have_text("good")
    page.get_by_label("New password").fill("passwordpassword")
    press(page, "Make my account")
    looks.at("signup-refused")
    sign_up(page, email)
    looks.at("account-new")
    page.get_by_role("link", name="Add an app").click()
    looks.at("app")
    page.get_by_label("Your password").fill(OTHER)
    press(page, "Go on")
    looks.at("app-refused")
    page.get_by_label("Your password").fill(PASSWORD)
    press(page, "Go on")
    looks.at("app-connect")
    secret = page.locator("figcaption code").inner_text()
    page.get_by_label("Code").fill("000000")
    press(page, "Connect the app")
    looks.at("app-connect-refused")
    page.get_by_label("Code").fill(pyotp.TOTP(secret).now())
    press(page, "Connect the app")
    looks.at("codes")
    page.goto("/account/passkeys")
    page.get_by_label("Name of the passkey").fill("The telephone that I have at work, in the drawer")
    page.get_by_label("Your password").fill(PASSWORD)
    press(page, "Go on")
    looks.at("passkey-make")
    press(page, "Make the passkey")
    heading(page, "Your account")
    looks.at("account-notice")
    remove = page.get_by_role("link", name="Remove The telephone").get_attribute("href")
    for name in ("address", "password", "app/remove", "recovery-codes", "passkeys", "delete"):
        looks.at(f"account-{name.replace('/', '-')}", f"/account/{name}")
    looks.at("passkey-remove", remove)
    looks.at("not-there", "/account/passkeys/AAAA")
    other = new_context(user_agent="Mozilla/5.0 (iPhone) CriOS/140").new_page()
    other.goto("/login")
    log_in(other, email)
    other.get_by_label("Code").fill(pyotp.TOTP(secret).at(int(time.time()) + 30))
    press(other, "Go on with the code")
    heading(other, "Your account")
    looks.at("account", "/account")
    press(page, "Log out here")
    looks.at("logged-out")
    page.goto("/login")
    log_in(page, email)
    looks.at("second-factor")
    page.get_by_label("Code").fill("000000")
    press(page, "Go on with the code")
    looks.at("second-factor-refused")
    for name in ("signup/confirm", "password/reset", "email/confirm", "email/undo", "factors/undo", "password/undo"):
        looks.at(name.replace("/", "-"), f"/{name}?code={CODE}")
    looks.at("password-forgot", "/password/forgot")
    page.get_by_label("E-mail address").fill("nobody@example.com")
    press(page, "Send me a link")
    looks.at("password-forgot-done")
    assert looks.faults == []


def test_a_page_with_all_that_belongs_to_it_is_small(new_context: NewContext) -> None:
    page = new_context().new_page()
    sign_up(page, "small@example.com")
    tools = page.context.new_cdp_session(page)
    tools.send("Network.enable")
    tools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    came: list[int] = []
    tools.on("Network.loadingFinished", lambda told: came.append(int(told["encodedDataLength"])))
    figures: list[str] = []
    for path in ("/login", "/signup", "/account", "/account/password", "/account/app", "/logged-out"):
        came.clear()
        page.goto(path)
        until(page, lambda: len(came) >= 1 + page.locator("link[rel=stylesheet], script").count())
        figures.append(f"{path} {sum(came)}")
        assert 1_000 < sum(came) < MOST_BYTES
    if folder := os.environ.get(SCREENSHOTS):
        (Path(folder) / "sizes.txt").write_text("\n".join(figures) + "\n", encoding="utf-8")
