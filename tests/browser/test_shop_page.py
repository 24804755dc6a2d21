"""The demo's page in a real Chromium against the real `jotgate demo`: a newcomer's first five minutes."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Route, expect

from tests.conftest import PASSWORD

# Chromium itself writes this line for each answer of 400 and above; the page asks on purpose for what is refused.
REFUSAL_LINE = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
TIMES = "\N{MULTIPLICATION SIGN}"
STORED = "Object.keys(localStorage).length + Object.keys(sessionStorage).length + document.cookie.length"


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """The shop's page, opened; whatever it complains about (a script error, a CSP violation) fails the test."""
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not REFUSAL_LINE.match(message.text):
            complaints.append(message.text)

    page = context.new_page()
    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/")
    expect(page.get_by_role("heading", name="Pocket notebook")).to_be_visible()
    yield page
    assert complaints == []


@pytest.fixture
def email(new_email: Callable[[], str]) -> str:
    return new_email()


def fill_in(page: Page, way: str, email: str, password: str = PASSWORD) -> None:
    page.get_by_role("radio", name=way).check(force=True)  # its label covers it
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name=way).click()


def sign_up(page: Page, email: str) -> None:
    fill_in(page, "Sign up", email)
    expect(page.get_by_role("heading", name="You are in")).to_be_visible()


def order(page: Page, product: str, quantity: int) -> None:
    page.get_by_label(f"How many: {product}").fill(str(quantity))
    page.get_by_role("button", name=f"Order: {product}").click()
    expect(page.get_by_role("status")).to_have_text(f"Ordered: {quantity} {TIMES} {product}.")


def shown_token(page: Page) -> str:
    return page.locator("#raw").inner_text()


def test_a_person_signs_up_orders_refreshes_reloads_logs_out_and_in_again(page: Page, email: str) -> None:
    sign_up(page, email)
    expect(page.get_by_text(email)).to_be_visible()
    expect(page.locator("#no-orders")).to_have_text("None yet. The shelf is well stocked.")

    order(page, "Sealing wax", 3)
    orders = page.get_by_role("region", name="Your orders").get_by_role("listitem")
    expect(orders).to_have_count(1)
    expect(orders.first).to_contain_text(f"3 {TIMES} Sealing wax")
    expect(orders.first).to_contain_text("€18.60")

    before = shown_token(page)
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("status")).to_have_text("A new token, the same session.")
    assert shown_token(page) != before
    expect(orders).to_have_count(1)
    order(page, "Brass ruler", 1)
    expect(orders).to_have_count(2)

    page.reload()
    expect(page.get_by_text(email)).to_be_visible()
    expect(orders).to_have_count(2)

    page.get_by_role("button", name="Log out").click()
    refusal = page.get_by_role("region", name="The gate is shut")
    expect(refusal).to_contain_text("GET /api/orders")
    expect(refusal).to_contain_text("401 token_revoked")
    expect(orders).to_have_count(0)

    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    fill_in(page, "Log in", email)
    expect(page.get_by_role("heading", name="You are in")).to_be_visible()
    expect(orders).to_have_count(2)


def test_the_page_shows_the_three_parts_of_the_token_and_the_time_left(page: Page, email: str) -> None:
    sign_up(page, email)

    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", shown_token(page))
    header, payload, signature = (page.locator(f"#token-{part}") for part in ("header", "payload", "signature"))
    expect(header).to_contain_text("ES256")
    expect(payload).to_contain_text("account:read orders:read orders:write")
    expect(payload).not_to_contain_text(email)
    expect(signature).to_contain_text("64")
    left = page.get_by_role("timer")
    expect(left).to_have_text(re.compile(r"Token good for (5:00|4:5\d)"))
    earlier = left.inner_text()
    expect(left).not_to_have_text(earlier)  # it counts


def test_no_script_can_read_a_credential_from_storage_or_cookies(page: Page, email: str) -> None:
    sign_up(page, email)

    assert page.evaluate(STORED) == 0
    assert page.evaluate("async () => (await indexedDB.databases()).length") == 0


def test_the_browser_holds_the_refresh_token_in_a_host_http_only_strict_cookie(
    page: Page, context: BrowserContext, email: str
) -> None:
    sign_up(page, email)

    cookies = sorted(context.cookies(), key=lambda each: each["name"])
    for cookie, (name, value) in zip(cookies, (("[0-9a-f]{8}", "jgr_"), ("[0-9a-f]{8}-device", "jgd_")), strict=True):
        assert re.fullmatch(f"__Host-Http-jotgate-{name}", cookie["name"])
        assert cookie["value"].startswith(value)
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        assert (cookie["domain"], cookie["path"]) == ("localhost", "/")

    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("region", name="The gate is shut")).to_be_visible()
    # That somebody has logged in with this browser is remembered; it opens nothing.
    assert [each["name"].rpartition("-")[2] for each in context.cookies()] == ["device"]


def test_a_wrong_password_is_told_in_one_sentence_and_an_unknown_address_in_the_same(page: Page, email: str) -> None:
    sign_up(page, email)
    page.get_by_role("button", name="Log out").click()
    sentence = "That e-mail address and that password do not belong together."

    fill_in(page, "Log in", email, "not the password at all")
    expect(page.get_by_role("status")).to_have_text(sentence)
    fill_in(page, "Log in", f"nobody-{email}", "not the password at all")
    expect(page.get_by_role("status")).to_have_text(sentence)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


@pytest.mark.parametrize(
    ("address", "password", "sentence"),
    [
        ("new", "too short", "The password needs at least 15 characters."),
        ("taken", PASSWORD, "There is an account with this address already. Log in instead."),
    ],
)
def test_a_sign_up_that_cannot_be_is_told_in_plain_words(
    page: Page, email: str, address: str, password: str, sentence: str
) -> None:
    if address == "taken":
        sign_up(page, email)
        page.get_by_role("button", name="Log out").click()

    fill_in(page, "Sign up", email, password)
    expect(page.get_by_role("status")).to_have_text(sentence)


def test_a_call_whose_token_is_refused_is_repeated_once_with_a_fresh_one(page: Page, email: str) -> None:
    sign_up(page, email)
    before = shown_token(page)

    def spoil(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "authorization": f"Bearer {before}AAAA"})

    page.route("**/api/orders", spoil, times=1)
    order(page, "Cedar pencils", 2)

    assert shown_token(page) != before
    calls = page.get_by_role("region", name="What went over the wire").get_by_role("listitem")
    expect(calls.filter(has_text="POST /api/orders")).to_have_count(2)
    expect(calls.filter(has_text="POST /api/orders").last).to_contain_text("401")
    expect(page.get_by_role("region", name="Your orders").get_by_role("listitem")).to_have_count(1)


def test_logging_out_in_one_tab_ends_the_other_one(page: Page, context: BrowserContext, email: str) -> None:
    sign_up(page, email)
    other = context.new_page()
    other.goto("/")
    expect(other.get_by_text(email)).to_be_visible()

    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("region", name="The gate is shut")).to_be_visible()
    other.get_by_role("button", name="Order: Envelopes").click()

    expect(other.get_by_role("status")).to_have_text("Your session has ended. Please log in again.")
    expect(other.get_by_role("button", name="Log in")).to_be_visible()


def test_somebody_who_is_not_logged_in_sees_the_shelf_and_the_apis_refusal(page: Page) -> None:
    page.get_by_role("button", name="Order: Iron-gall ink").click()

    expect(page.get_by_role("status")).to_have_text("Please log in first.")
    expect(page.get_by_role("region", name="What went over the wire")).to_contain_text("POST /api/orders")


def test_everything_can_be_done_with_the_keyboard(page: Page, email: str) -> None:
    page.get_by_role("radio", name="Log in").focus()
    page.keyboard.press("ArrowRight")  # to "Sign up"
    page.keyboard.press("Tab")
    page.keyboard.type(email)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="You are in")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Refresh")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("A new token, the same session.")
    expect(page.get_by_role("button", name="Refresh")).to_be_focused()  # it kept the focus while it was busy


def test_nothing_sticks_out_sideways_from_320_pixels_to_wide(page: Page, email: str) -> None:
    sign_up(page, email)
    order(page, "Envelopes", 20)

    for width in (320, 768, 960, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, width
