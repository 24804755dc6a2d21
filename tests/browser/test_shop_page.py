"""The demo's page in a real Chromium against the real `jotgate demo`: a newcomer's first hour."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pyotp
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, expect

from tests.browser.conftest import WITHIN_MS, arguments
from tests.conftest import PASSWORD, Need, RunningServer, log_in
from tests.test_demo import printed_accounts

# Chromium itself writes this line for each answer of 400 and above, and for each request that a test's outage ends.
OWN_LINE = re.compile(r"Failed to load resource: (the server responded with a status of [45]\d\d|net::ERR_)")
TIMES = "\N{MULTIPLICATION SIGN}"
ENDED = "Your session has ended. Please log in again."
MAX_TRANSFER_BYTES = 60_000


@dataclass
class Tab:
    """The shop's page in a tab, as a person uses it."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.open()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not OWN_LINE.match(message.text):
            self.complaints.append(message.text)

    def open(self) -> None:
        self.page.goto("/")
        expect(self.page.get_by_role("link", name="Pocket notebook")).to_be_visible()

    def enter(self, way: str, email: str, password: str = PASSWORD) -> None:
        if not self.page.get_by_label("E-mail address").is_visible():
            self.page.locator("#to-enter").click()
        self.page.get_by_role("radio", name=way).check(force=True)  # its label covers it
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name=way).click()

    def sign_up(self, email: str) -> None:
        self.enter("Sign up", email)
        expect(self.page.get_by_text(email)).to_be_visible()

    def put_in_cart(self, *products: str) -> None:
        self.page.get_by_role("link", name="Shelf", exact=True).click()
        for product in products:
            self.page.get_by_role("button", name=f"Add to cart: {product}").click()
            self.says(f"In your cart: 1 {TIMES} {product}.")

    def check_out(self) -> None:
        self.page.get_by_role("link", name="Cart").click()
        self.page.get_by_role("button", name="Place the order").click()

    def order(self, *products: str) -> None:
        self.put_in_cart(*products)
        self.check_out()
        self.says("Thank you. Your order is placed.")

    def see_orders(self, count: int) -> None:
        self.page.get_by_role("link", name="Orders").click()
        expect(self.page.locator(".orders li")).to_have_count(count)

    def open_token(self) -> None:
        if not self.page.locator("#token").is_visible():
            self.page.get_by_role("button", name="Token").click()

    def call_api(self) -> None:
        self.open_token()
        self.page.get_by_role("button", name="Call the API now").click()

    def says(self, words: str) -> None:
        expect(self.page.get_by_role("status")).to_have_text(words)

    def is_in_as(self, email: str) -> None:
        expect(self.page.get_by_role("button", name="Log out")).to_be_visible()
        expect(self.page.locator("#who")).to_have_text(email)

    def shows_nothing_private(self, *private: str) -> None:
        expect(self.page.get_by_role("link", name="Log in").first).to_be_visible()
        expect(self.page.locator(".orders li")).to_have_count(0)
        content = self.page.content()
        for text in private:
            assert text not in content

    def shown_token(self) -> str:
        return self.page.locator("#raw").text_content() or ""


@pytest.fixture
def new_tab(context: BrowserContext) -> Iterator[Callable[[], Tab]]:
    """Opens the shop; whatever its page complains about (a script error, a CSP violation) fails the test."""
    tabs: list[Tab] = []

    def make() -> Tab:
        tabs.append(Tab(context.new_page()))
        return tabs[-1]

    yield make
    assert [complaint for tab in tabs for complaint in tab.complaints] == []


@pytest.fixture
def tab(new_tab: Callable[[], Tab]) -> Tab:
    return new_tab()


@pytest.fixture
def email(new_email: Callable[[], str]) -> str:
    return new_email()


def another_device(server: RunningServer, email: str) -> dict[str, str]:
    """Log in elsewhere; returns the body of a request of that session."""
    with server.client("/auth") as client:
        return {"refresh_token": log_in(client, email)["refresh_token"]}


def test_the_whole_journey(
    tab: Tab, new_tab: Callable[[], Tab], email: str, context: BrowserContext, running_shop: RunningServer
) -> None:
    page = tab.page
    tab.sign_up(email)
    tab.says("Welcome. Your account is ready.")

    page.get_by_label("Search the shelf").fill("brass")
    expect(page.get_by_text("2 found for")).to_be_visible()
    page.get_by_role("link", name="Brass ruler").click()
    page.get_by_label("How many", exact=True).fill("2")
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("button", name="Log out").click()  # which empties the cart, too
    tab.says("You are logged out.")

    page.get_by_role("link", name="Shelf", exact=True).click()
    page.get_by_label("Search the shelf").fill("")
    tab.put_in_cart("Sealing wax", "Brass ruler")
    page.get_by_role("link", name="Cart (2)").click()
    page.get_by_label("How many: Sealing wax").fill("3")
    page.get_by_label("How many: Sealing wax").press("Tab")
    page.get_by_role("link", name="Log in to order").click()
    tab.enter("Log in", email)
    expect(page.get_by_text("Total €37.50")).to_be_visible()
    page.get_by_role("button", name="Place the order").click()
    tab.says("Thank you. Your order is placed.")
    orders = page.locator(".orders li")
    expect(orders).to_have_count(2)
    expect(orders.filter(has_text=f"3 {TIMES} Sealing wax")).to_contain_text("€18.60")

    page.reload()
    tab.is_in_as(email)
    expect(orders).to_have_count(2)
    tab.open_token()
    token = tab.shown_token()

    other = new_tab()
    other.is_in_as(email)
    other.see_orders(2)
    other.page.get_by_role("button", name="Log out").click()
    for each in (tab, other):
        each.says("You are logged out.")
        each.shows_nothing_private(email, token.split(".")[1])

    tab.enter("Log in", email)
    for each in (tab, other):
        each.is_in_as(email)
        each.see_orders(2)
    body = another_device(running_shop, email)
    with running_shop.client("/auth") as client:
        client.post("/v1/logout/everywhere", json=body).raise_for_status()
    page.wait_for_timeout(1000)  # the promise
    tab.call_api()
    tab.says(ENDED)
    refused = page.locator("#calls li").filter(has_text="token_revoked")
    expect(refused).to_contain_text("GET /api/orders")
    for each in (tab, other):
        each.shows_nothing_private(email)


# Before the page can do anything about it: whether it was kept, and what is in it.
TELL_SHOWN = (
    "addEventListener('pageshow', ({persisted}) => console.info(`kept: ${persisted}`, document.body.textContent))"
)


@pytest.fixture
def keeping_tab(browser: Browser, running_shop: RunningServer, need: Need) -> Iterator[Tab]:
    """A tab of a Chromium that keeps pages for going back, as people's does and Playwright's own does not."""
    keeping = browser.browser_type.launch(
        executable_path=need("chromium"),
        args=arguments(running_shop),
        ignore_default_args=["--disable-back-forward-cache"],
    )
    context = keeping.new_context(base_url=running_shop.url, locale="en-GB")
    context.set_default_timeout(WITHIN_MS)
    context.add_init_script(TELL_SHOWN)
    yield Tab(context.new_page())
    keeping.close()


@pytest.mark.parametrize("stays_in", [True, False])
def test_going_back_shows_what_is_private_to_whoever_is_logged_in_alone(
    keeping_tab: Tab, email: str, running_shop: RunningServer, stays_in: bool
) -> None:
    tab, page = keeping_tab, keeping_tab.page
    tab.sign_up(email)
    tab.order("Envelopes")
    tab.see_orders(1)
    tab.open_token()
    payload = tab.shown_token().split(".")[1]
    page.goto("/mails")
    if not stays_in:
        body = another_device(running_shop, email)
        with running_shop.client("/auth") as client:
            client.post("/v1/logout/everywhere", json=body).raise_for_status()

    with page.expect_console_message(lambda message: message.text.startswith("kept: true")) as shown:
        page.go_back(wait_until="commit")
    if stays_in:
        tab.is_in_as(email)
        expect(page.locator(".orders li")).to_have_count(1)
    else:
        expect(page.get_by_text("Log in to see them.")).to_be_visible()
        tab.shows_nothing_private(email, payload)
    for text in (email, payload, "Envelopes"):
        assert text not in shown.value.text


def test_going_back_within_the_page_shows_nothing_private(tab: Tab, email: str) -> None:
    tab.sign_up(email)
    tab.order("Envelopes")
    tab.see_orders(1)
    tab.page.get_by_role("button", name="Log out").click()
    tab.says("You are logged out.")
    tab.page.get_by_role("link", name="Shelf", exact=True).click()

    tab.page.go_back()
    expect(tab.page.get_by_text("Log in to see them.")).to_be_visible()
    tab.shows_nothing_private(email)


def refresh_at_once(tabs: list[Tab], rounds: int) -> None:
    """Let the tabs find out at the same time that the token they share is refused."""

    def spoil(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "authorization": "Bearer spoiled"})

    for each in tabs:
        each.open_token()
        expect(each.page.locator("#held")).to_be_visible()
    for number in range(rounds):
        before = [each.shown_token() for each in tabs]
        for each in tabs:
            each.page.route("**/api/orders", spoil, times=1)
        # Not one after the other: neither click waits for what it leads to.
        for each in tabs[:: 1 if number % 2 else -1]:
            each.page.evaluate("document.getElementById('call').click()")
        for each, old in zip(tabs, before, strict=True):
            each.says("The API has checked the token, and answered.")
            expect(each.page.locator("#raw")).not_to_have_text(old)


def test_two_tabs_that_refresh_at_once_both_stay_logged_in(tab: Tab, new_tab: Callable[[], Tab], email: str) -> None:
    tab.sign_up(email)
    refresh_at_once([tab, new_tab()], rounds=10)


@pytest.mark.soak
def test_two_tabs_that_refresh_at_once_a_hundred_times(tab: Tab, new_tab: Callable[[], Tab], email: str) -> None:
    tab.sign_up(email)
    refresh_at_once([tab, new_tab()], rounds=100)


def test_a_network_that_goes_and_comes_logs_nobody_out(tab: Tab, email: str, context: BrowserContext) -> None:
    tab.sign_up(email)
    offline = "You are offline. The shop goes on when the network is back."

    context.set_offline(True)
    tab.says(offline)
    tab.call_api()
    tab.says(offline)
    context.set_offline(False)
    tab.says("You are online again.")
    tab.call_api()
    tab.says("The API has checked the token, and answered.")
    tab.is_in_as(email)


def test_a_checkout_whose_answer_gets_lost_is_ordered_once(tab: Tab, email: str, running_shop: RunningServer) -> None:
    def lose(route: Route) -> None:
        sent = route.request
        with running_shop.client() as client:
            headers = {name: sent.headers[name] for name in ("authorization", "content-type")}
            answer = client.post("/api/checkout", headers=headers, content=sent.post_data_buffer or b"")
        assert answer.status_code == 201
        route.abort()

    tab.sign_up(email)
    tab.put_in_cart("Linen twine")
    tab.page.route("**/api/checkout", lose, times=1)
    tab.check_out()
    tab.says("The shop does not answer. Is it still running?")
    tab.page.get_by_role("button", name="Place the order").click()
    tab.says("Thank you. Your order is placed.")
    tab.see_orders(1)


@pytest.mark.parametrize("hours", [8, -8])
def test_a_clock_that_jumps_logs_nobody_out(tab: Tab, email: str, hours: int) -> None:
    tab.page.clock.install()
    tab.open()
    tab.sign_up(email)
    tab.open_token()

    if hours > 0:
        tab.page.clock.fast_forward(hours * 3_600_000)  # as a laptop sleeps
    else:
        tab.page.clock.set_system_time(tab.page.evaluate("Date.now()") + hours * 3_600_000)
    tab.call_api()
    tab.page.clock.run_for(2000)
    tab.says("The API has checked the token, and answered.")
    tab.is_in_as(email)
    expect(tab.page.get_by_role("timer")).to_have_text(re.compile(r"Good for (5:0\d|4:5\d)\."))


def test_cookies_that_are_blocked_are_told_in_plain_words(
    browser: Browser, running_shop: RunningServer, need: Need, tmp_path: Path, email: str
) -> None:
    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (profile / "Default" / "Preferences").write_text(json.dumps(settings))
    context = browser.browser_type.launch_persistent_context(
        profile,
        executable_path=need("chromium"),
        args=arguments(running_shop),
        base_url=running_shop.url,
    )
    context.set_default_timeout(WITHIN_MS)
    tab = Tab(context.pages[0])
    tab.enter("Sign up", email)
    tab.says(
        "Your browser keeps no cookies for this shop, so you cannot stay logged in. "
        "Please allow them, then log in again."
    )
    tab.shows_nothing_private(email)
    context.close()


def test_who_orders_too_often_is_told_when_again(tab: Tab, email: str, running_shop: RunningServer) -> None:
    tab.sign_up(email)
    with running_shop.client() as client:
        client.base_url = f"{running_shop.url}/auth"
        headers = {"Authorization": f"Bearer {log_in(client, email)['access_token']}"}
        client.base_url = running_shop.url
        for number in range(5):
            cart = {"id": f"checkout number {number}", "lines": [{"product": "envelopes", "quantity": 1}]}
            client.post("/api/checkout", json=cart, headers=headers).raise_for_status()
    tab.put_in_cart("Envelopes")
    tab.check_out()
    expect(tab.page.get_by_role("status")).to_have_text(
        re.compile(r"That was a lot at once\. Please try again in (1\d|2[0-4]) seconds\.")
    )
    tab.is_in_as(email)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"retry-after": "30"}, "The shop is busy. Please try again in 30 seconds."),
        ({}, "The shop is busy. Please try again in a moment."),
    ],
)
def test_a_shop_that_is_busy_says_so_and_logs_nobody_out(
    tab: Tab, email: str, headers: dict[str, str], words: str
) -> None:
    tab.sign_up(email)
    tab.page.route("**/api/orders", lambda route: route.fulfill(status=503, headers=headers, json={"code": "busy"}))
    tab.call_api()
    tab.says(words)
    tab.is_in_as(email)


EVERYTHING_KEPT = """async () => JSON.stringify([
    {...localStorage}, {...sessionStorage}, document.cookie, await indexedDB.databases(), await caches.keys(),
    location.href, history.state, performance.getEntries().map(entry => entry.name),
])"""


def test_no_token_is_anywhere_but_in_memory_and_in_the_cookie(
    context: BrowserContext, tab: Tab, email: str, running_shop: RunningServer
) -> None:
    secrets: set[str] = set()

    def note(request: Request) -> None:
        if bearer := request.headers.get("authorization"):
            secrets.add(bearer.removeprefix("Bearer ").rpartition(".")[2])

    context.on("request", note)
    tab.sign_up(email)
    tab.order("Cedar pencils")
    tab.page.reload()
    tab.is_in_as(email)
    tab.call_api()
    tab.says("The API has checked the token, and answered.")
    tab.page.get_by_role("button", name="Log out").click()
    tab.says("You are logged out.")
    tab.enter("Log in", email)
    tab.see_orders(1)
    secrets |= {each["value"] for each in context.cookies()}
    assert len(secrets) >= 5

    kept = tab.page.evaluate(EVERYTHING_KEPT)
    entries = context.new_cdp_session(tab.page).send("Page.getNavigationHistory")["entries"]
    everything = kept + json.dumps(entries) + running_shop.output
    assert json.loads(kept)[:5] == [{}, {}, "", [], []]
    assert [secret for secret in secrets if secret in everything] == []
    for cookie in context.cookies():
        assert re.fullmatch("__Host-Http-jotgate-[0-9a-f]{8}(-device)?", cookie["name"])
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        assert (cookie["domain"], cookie["path"]) == ("localhost", "/")


def test_what_the_policy_forbids_is_blocked(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    violated = page.evaluate(
        """async () => {
            const violations = [];
            addEventListener("securitypolicyviolation", ({effectiveDirective}) => violations.push(effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.wasRun = true";
            const style = document.createElement("style");
            style.textContent = "body { color: red }";
            document.head.append(script, style);
            await fetch("https://example.com/").catch(() => {});
            while (violations.length < 3) await new Promise(resolve => setTimeout(resolve, 10));
            return violations.sort().concat(String(window.wasRun));
        }"""
    )
    assert violated == ["connect-src", "script-src-elem", "style-src-elem", "undefined"]


def test_the_drawer_explains_each_claim_and_shows_the_time_left(tab: Tab, email: str) -> None:
    tab.sign_up(email)
    tab.open_token()

    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", tab.shown_token())
    claims = tab.page.locator("#token dl > div")
    names = claims.locator("dt").all_inner_texts()
    assert {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "auth_time", "acr", "amr"} <= {
        *names
    }
    for explanation in claims.locator("small").all_inner_texts():
        assert explanation.endswith(".")
        assert " " in explanation
    expect(tab.page.locator("#token-payload")).not_to_contain_text(email)
    left = tab.page.get_by_role("timer")
    expect(left).to_have_text(re.compile(r"Good for (5:00|4:5\d)\. The next one is fetched in [34]:\d\d\."))
    earlier = left.inner_text()
    expect(left).not_to_have_text(earlier)  # it counts


def test_another_devices_session_is_revoked_in_the_drawer(tab: Tab, email: str, running_shop: RunningServer) -> None:
    tab.sign_up(email)
    other = another_device(running_shop, email)
    tab.open_token()
    sessions = tab.page.locator("#sessions li")
    expect(sessions).to_have_count(2)

    sessions.filter(has_not_text="this one").get_by_role("button", name="Revoke").click()
    tab.says("That session is over: its tokens are refused from now on.")
    expect(sessions).to_have_count(1)
    with running_shop.client("/auth") as client:
        assert client.post("/v1/refresh", json=other).status_code == 401

    sessions.get_by_role("button", name="Revoke").click()
    tab.says("You are logged out.")
    tab.shows_nothing_private(email)


def test_staff_change_stock_and_customers_cannot(
    browser: Browser, tab: Tab, email: str, running_shop: RunningServer
) -> None:
    page = tab.page
    staff = printed_accounts(running_shop)[1]
    tab.enter("Log in", staff["email"], staff["password"])
    tab.is_in_as(staff["email"])
    page.get_by_role("link", name="Soft eraser").click()
    page.get_by_label("How many are left (staff)").fill("4")
    page.get_by_role("button", name="Save").click()
    tab.says("Soft eraser: 4 in stock.")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("Only 4 left")).to_be_visible()
    expect(page.get_by_label("How many are left (staff)")).to_have_count(0)

    tab.sign_up(email)
    tab.put_in_cart("Soft eraser")
    with running_shop.client() as client:
        tokens = client.post("/auth/v1/login", json={**staff, "delivery": "body"}).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        client.patch("/api/products/eraser", json={"stock": 0}, headers=headers).raise_for_status()
    tab.check_out()
    tab.says("Somebody was quicker: there are not so many left. Please look at your cart.")
    expect(page.get_by_text("Sold out")).to_be_visible()
    page.get_by_role("button", name="Remove: Soft eraser").click()
    expect(page.get_by_text("It is empty.")).to_be_visible()


def test_a_wrong_password_is_told_in_one_sentence_and_an_unknown_address_in_the_same(tab: Tab, email: str) -> None:
    tab.sign_up(email)
    tab.page.get_by_role("button", name="Log out").click()
    sentence = "That e-mail address and that password do not belong together."

    tab.enter("Log in", email, "not the password at all")
    tab.says(sentence)
    tab.enter("Log in", f"nobody-{email}", "not the password at all")
    tab.says(sentence)
    expect(tab.page.get_by_role("button", name="Log in")).to_be_visible()


@pytest.mark.parametrize(
    ("address", "password", "sentence"),
    [
        ("new", "too short", "The password needs at least 15 characters."),
        ("taken", PASSWORD, "There is an account with this address already. Log in instead."),
    ],
)
def test_a_sign_up_that_cannot_be_is_told_in_plain_words(
    tab: Tab, email: str, address: str, password: str, sentence: str
) -> None:
    if address == "taken":
        tab.sign_up(email)
        tab.page.get_by_role("button", name="Log out").click()

    tab.enter("Sign up", email, password)
    tab.says(sentence)


def add_second_factor(client: httpx2.Client, email: str) -> list[str]:
    """Add an authenticator app to the account; returns its recovery codes."""
    token = {"refresh_token": log_in(client, email)["refresh_token"]}
    app = client.post("/v1/factors/totp", json=token | {"current_password": PASSWORD}).json()
    code = pyotp.TOTP(app["secret"]).now()
    added = client.post("/v1/factors/totp/confirm", json=token | {"code": code})
    assert added.status_code == 200, added.text
    codes: list[str] = added.json()["recovery_codes"]
    return codes


def test_a_second_factor_is_asked_for(tab: Tab, email: str, running_shop: RunningServer) -> None:
    with running_shop.client("/auth") as client:
        client.post("/v1/signup", json={"email": email, "password": PASSWORD}).raise_for_status()
        codes = add_second_factor(client, email)

    tab.enter("Log in", email)
    code = tab.page.get_by_label("Code of your authenticator app, or a recovery code")
    code.fill("000 000")
    tab.page.get_by_role("button", name="Go on").click()
    expect(tab.page.get_by_role("status")).not_to_be_empty()
    code.fill(codes[0])
    tab.page.get_by_role("button", name="Go on").click()
    tab.is_in_as(email)
    tab.open_token()
    expect(tab.page.locator("#token-payload")).to_contain_text("aal2")


def test_everything_can_be_done_with_the_keyboard(tab: Tab, email: str) -> None:
    page = tab.page

    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    expect(page.locator("#to-enter")).to_be_visible()
    page.locator("#to-enter").focus()
    press("Enter")
    expect(page.get_by_role("heading", name="Come in")).to_be_focused()
    press("Tab", "ArrowRight", "Tab")  # to "Sign up", then on
    page.keyboard.type(email)
    press("Tab")
    page.keyboard.type(PASSWORD)
    press("Enter")
    expect(page.get_by_role("heading", name="On the shelf")).to_be_focused()
    tab.is_in_as(email)
    page.get_by_role("button", name="Add to cart: Envelopes").focus()
    press("Enter")
    tab.says(f"In your cart: 1 {TIMES} Envelopes.")
    page.get_by_role("link", name="Cart (1)").focus()
    press("Enter")
    expect(page.get_by_role("heading", name="Your cart")).to_be_focused()
    press("Tab", "Tab", "Tab", "Tab")
    expect(page.get_by_role("button", name="Place the order")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("heading", name="Your orders")).to_be_focused()
    page.get_by_role("button", name="Token").focus()
    press("Enter")
    expect(page.get_by_role("heading", name="Your token")).to_be_focused()
    press("Escape")
    expect(page.get_by_role("button", name="Token")).to_be_focused()


def test_nothing_sticks_out_sideways_from_320_pixels_to_wide(tab: Tab, email: str) -> None:
    page = tab.page
    tab.sign_up(email)
    tab.order("Envelopes", "Sealing wax")
    tab.put_in_cart("Brass ruler")
    tab.open_token()

    for way in ("#/", "#/cart", "#/orders", "#/product/ink"):
        page.evaluate("way => { location.hash = way; }", way)
        for width in (320, 600, 768, 992, 1600):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, (way, width)


def test_every_view_is_accessible_in_light_and_dark(
    browser: Browser, running_shop: RunningServer, axe: str, email: str
) -> None:
    context = browser.new_context(base_url=running_shop.url, bypass_csp=True)  # for axe, which is no part of the page
    context.set_default_timeout(WITHIN_MS)
    context.add_init_script(axe)
    tab = Tab(context.new_page())
    page = tab.page
    faults: list[str] = []

    def check(view: str) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = page.evaluate("axe.run({resultTypes: ['violations']})")
            faults.extend(
                f"{view}, {scheme}: {each['id']} {node['html'][:200]}"
                for each in found["violations"]
                for node in each["nodes"]
            )

    tab.open_token()
    check("shelf")
    page.get_by_role("button", name="Close").click()
    page.locator("#to-enter").click()
    expect(page.get_by_label("E-mail address")).to_be_visible()
    check("enter")
    tab.sign_up(email)
    tab.order("Envelopes")
    expect(page.locator(".orders li")).to_have_count(1)
    check("orders")
    tab.put_in_cart("Sealing wax")
    page.get_by_role("link", name="Sealing wax").click()
    expect(page.get_by_label("How many", exact=True)).to_be_visible()
    check("product")
    page.get_by_role("link", name="Cart (1)").click()
    expect(page.get_by_role("button", name="Place the order")).to_be_visible()
    tab.open_token()
    expect(page.locator("#sessions li")).to_have_count(1)
    check("cart and token")
    context.close()
    assert faults == []


def test_the_whole_page_is_small(context: BrowserContext) -> None:
    page = context.new_page()
    tools = context.new_cdp_session(page)
    sizes: list[int] = []
    tools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    tools.send("Network.enable")
    page.goto("/")
    expect(page.get_by_role("link", name="Pocket notebook")).to_be_visible()
    page.wait_for_load_state("networkidle")

    assert len(sizes) > 20
    assert sum(sizes) < MAX_TRANSFER_BYTES
